//! What the parameters of a URL mean: each one that libpq knows is honoured, without effect here, or
//! refused, because to ignore it would be unsafe.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::ChannelBinding;

/// How much a connection has to be encrypted, and the server to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Whom the server's certificate has to be signed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RootCertificates {
    File(PathBuf),
    System,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsVersion {
    V1_2,
    V1_3,
}

/// The parameters, as far as they are given. Has no `Debug`, as it holds the password.
#[derive(Default)]
pub(super) struct Parameters {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) dbname: Option<String>,
    pub(super) hosts: Vec<String>,
    pub(super) addresses: Vec<Option<IpAddr>>,
    pub(super) ports: Vec<Option<u16>>,
    pub(super) application_name: Option<String>,
    pub(super) fallback_application_name: Option<String>,
    pub(super) options: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalives: Option<bool>,
    pub(super) keepalives_idle: Option<Duration>,
    pub(super) keepalives_interval: Option<Duration>,
    pub(super) keepalives_count: Option<u32>,
    pub(super) tcp_user_timeout: Option<Duration>,
    pub(super) ssl_mode: Option<SslMode>,
    pub(super) ssl_root: Option<RootCertificates>,
    pub(super) ssl_certificate: Option<PathBuf>,
    pub(super) ssl_key: Option<PathBuf>,
    pub(super) ssl_direct: Option<bool>,
    pub(super) sends_certificate: Option<bool>,
    pub(super) sends_name: Option<bool>,
    pub(super) oldest_tls: Option<TlsVersion>,
    pub(super) newest_tls: Option<TlsVersion>,
    pub(super) channel_binding: Option<ChannelBinding>,
    /// Whether a server must take writes. Absent: with several hosts.
    pub(super) must_write: Option<bool>,
    pub(super) random_order: Option<bool>,
}

impl Parameters {
    /// Understands a list of parameters. The error tells what is wrong, and repeats no value.
    pub(super) fn read(pairs: Vec<(String, String)>) -> Result<Self, String> {
        let mut parameters = Self::default();
        let mut after_password = false;
        for (name, value) in pairs {
            if value.contains('\0') {
                return Err(format!(
                    "{}: U+0000 can't be sent",
                    shown(&name, after_password)
                ));
            }
            if !parameters.set(&name, &value)? {
                let name = shown(&name, after_password);
                return Err(format!("{name}: it is no parameter that is known here"));
            }
            after_password |= name == "password";
        }
        Ok(parameters)
    }

    /// Takes one parameter. `false`: there is none of this name.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        // libpq takes an empty value as an absent one.
        let given = (!value.is_empty()).then_some(value);
        match name {
            "user" => self.user = given.map(str::to_owned),
            "password" => self.password = given.map(str::to_owned),
            "dbname" => self.dbname = given.map(str::to_owned),
            "host" => self.hosts = list(value, |host| Ok(host.to_owned()))?,
            "hostaddr" => self.addresses = list(value, |text| optional(text, address))?,
            "port" => self.ports = list(value, |text| optional(text, port))?,
            "application_name" => self.application_name = given.map(str::to_owned),
            "fallback_application_name" => {
                self.fallback_application_name = given.map(str::to_owned);
            }
            "options" => self.options = given.map(str::to_owned),
            "connect_timeout" => self.connect_timeout = time(name, given, Duration::from_secs)?,
            "keepalives" => self.keepalives = whole(name, given)?.map(|value| value != 0),
            "keepalives_idle" => self.keepalives_idle = time(name, given, Duration::from_secs)?,
            "keepalives_interval" => {
                self.keepalives_interval = time(name, given, Duration::from_secs)?;
            }
            "keepalives_count" => {
                let count = whole(name, given)?.filter(|count| *count > 0);
                self.keepalives_count = count.map(|count| count as u32);
            }
            "tcp_user_timeout" => {
                self.tcp_user_timeout = time(name, given, Duration::from_millis)?;
            }
            "load_balance_hosts" => {
                let orders = [("disable", false), ("random", true)];
                self.random_order = chosen(name, given, &orders)?;
            }
            "target_session_attrs" => self.must_write = must_write(name, given)?,
            _ => return self.set_security(name, given),
        }
        Ok(true)
    }

    fn set_security(&mut self, name: &str, given: Option<&str>) -> Result<bool, String> {
        match name {
            "sslmode" => {
                let modes = [
                    ("disable", SslMode::Disable),
                    ("allow", SslMode::Allow),
                    ("prefer", SslMode::Prefer),
                    ("require", SslMode::Require),
                    ("verify-ca", SslMode::VerifyCa),
                    ("verify-full", SslMode::VerifyFull),
                ];
                self.ssl_mode = chosen(name, given, &modes)?;
            }
            "sslrootcert" => {
                self.ssl_root = given.map(|path| match path {
                    "system" => RootCertificates::System,
                    path => RootCertificates::File(path.into()),
                });
            }
            "sslcert" => self.ssl_certificate = given.map(PathBuf::from),
            "sslkey" => self.ssl_key = given.map(PathBuf::from),
            "sslnegotiation" => {
                let ways = [("postgres", false), ("direct", true)];
                self.ssl_direct = chosen(name, given, &ways)?;
            }
            "sslcertmode" => {
                let modes = [("allow", true), ("disable", false)];
                self.sends_certificate = chosen(name, given, &modes)?;
            }
            "sslsni" => {
                self.sends_name = chosen(name, given, &[("1", true), ("0", false)])?;
            }
            "ssl_min_protocol_version" => {
                let versions = [
                    ("TLSv1", TlsVersion::V1_2),
                    ("TLSv1.1", TlsVersion::V1_2),
                    ("TLSv1.2", TlsVersion::V1_2),
                    ("TLSv1.3", TlsVersion::V1_3),
                ];
                self.oldest_tls = chosen(name, given, &versions)?;
            }
            "ssl_max_protocol_version" => {
                let versions = [("TLSv1.2", TlsVersion::V1_2), ("TLSv1.3", TlsVersion::V1_3)];
                self.newest_tls = chosen(name, given, &versions)?;
            }
            "channel_binding" => {
                let ways = [
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ];
                self.channel_binding = chosen(name, given, &ways)?;
            }
            // Without effect: there is no GSSAPI, no compression, and text is always UTF-8.
            "gssencmode" => {
                one_of(
                    name,
                    given.unwrap_or("prefer"),
                    &[("disable", ()), ("prefer", ())],
                )?;
            }
            "sslcompression"
            | "client_encoding"
            | "krbsrvname"
            | "gsslib"
            | "gssdelegation"
            | "max_protocol_version" => {}
            "min_protocol_version" => {
                one_of(name, given.unwrap_or("3.0"), &[("3.0", ())])?;
            }
            "replication" => {
                let off = [("false", ()), ("off", ()), ("no", ()), ("0", ())];
                one_of(name, given.unwrap_or("false"), &off)?;
            }
            _ => {
                return refused(name, given).map_or(Ok(false), |why| match given {
                    Some(_) => Err(format!("{name}: {why}")),
                    None => Ok(true),
                });
            }
        }
        Ok(true)
    }
}

/// Why a parameter of libpq is refused.
fn refused(name: &str, given: Option<&str>) -> Option<&'static str> {
    match name {
        "sslcrl" | "sslcrldir" => Some("revocation lists are not supported"),
        "sslpassword" => Some("encrypted keys are not supported"),
        "sslkeylogfile" => Some("the keys of connections are not written anywhere"),
        "requirepeer" => Some("the server's operating system user can't be checked"),
        "require_auth" => Some("the server's choice can't be restricted; see channel_binding"),
        "passfile" => Some("password files are not read"),
        "service" | "servicefile" => Some("service files are not read"),
        "scram_client_key" | "scram_server_key" => Some("a password is needed instead"),
        "oauth_issuer" | "oauth_client_id" | "oauth_client_secret" | "oauth_scope" => {
            Some("OAuth is not supported")
        }
        // Others' parameters that operators' URLs carry.
        "schema" | "currentSchema" => Some("the schema is an option of the store"),
        _ => None,
    }
    .filter(|_| given.is_some() || !name.starts_with("oauth_"))
}

/// A name as messages may show it: one that can be no piece of a password. What follows on one may be,
/// where a space or an '&' in it was not written as it has to be.
fn shown(name: &str, after_password: bool) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    if after_password || name.len() > 32 || !name.bytes().all(plain) {
        "a parameter"
    } else {
        name
    }
}

/// A store writes, so servers that do not are no choice.
fn must_write(name: &str, given: Option<&str>) -> Result<Option<bool>, String> {
    match given {
        Some("read-only" | "standby") => Err(format!(
            "{name}: a store has to write; use read-write, or leave it out"
        )),
        // A store can't use a primary that refuses writes by default either, nor prefer a standby.
        given => chosen(
            name,
            given,
            &[
                ("any", false),
                ("read-write", true),
                ("primary", true),
                ("prefer-standby", true),
            ],
        ),
    }
}

fn list<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(|item| read(item.trim())).collect()
}

fn optional<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    (!text.is_empty()).then(|| read(text)).transpose()
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| "hostaddr: it must be an IP address".to_owned())
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| "port: it must be a number from 1 to 65535".to_owned())
}

fn whole(name: &str, given: Option<&str>) -> Result<Option<i32>, String> {
    given
        .map(|text| text.trim().parse())
        .transpose()
        .map_err(|_| format!("{name}: it must be a whole number"))
}

/// Zero and less mean the default, as in libpq.
fn time(
    name: &str,
    given: Option<&str>,
    unit: fn(u64) -> Duration,
) -> Result<Option<Duration>, String> {
    let value = whole(name, given)?.filter(|value| *value > 0);
    Ok(value.map(|value| unit(u64::from(value.unsigned_abs()))))
}

fn chosen<T: Copy>(
    name: &str,
    given: Option<&str>,
    choices: &[(&str, T)],
) -> Result<Option<T>, String> {
    given.map(|text| one_of(name, text, choices)).transpose()
}

fn one_of<T: Copy>(name: &str, text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let choice = choices.iter().find(|(choice, _)| *choice == text);
    choice.map(|(_, value)| *value).ok_or_else(|| {
        let choices: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
        format!("{name}: it must be {}", choices.join(" or "))
    })
}
