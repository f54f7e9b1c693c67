//! The cases of URIs follow libpq's own list, `src/interfaces/libpq/t/001_uri.pl` of PostgreSQL.

use std::fmt::Write;

use proptest::prelude::*;
use tokio_postgres::config::{ChannelBinding, SslNegotiation, TargetSessionAttrs};

use super::super::parameters::SslMode;
use super::super::target::ConnectionTarget;
use crate::contract::EventStoreError;
use crate::postgres::{PostgresStoreOptions, TlsOptions};

fn parse(url: &str) -> Result<ConnectionTarget, String> {
    parse_with(url, &PostgresStoreOptions::default())
}

fn parse_with(url: &str, options: &PostgresStoreOptions) -> Result<ConnectionTarget, String> {
    ConnectionTarget::parse(url, options).map_err(|error| match error {
        EventStoreError::InvalidOptions(message) => message,
        other => panic!("{url}: {other:?}"),
    })
}

/// `user:password@server,server/database`, each part as it was understood.
fn summary(target: &ConnectionTarget) -> String {
    let servers = target.servers.iter().map(|server| match server.address {
        Some(address) => format!("{server}({address})"),
        None => server.to_string(),
    });
    let password = target.config.get_password().map(String::from_utf8_lossy);
    format!(
        "{}:{}@{}/{}",
        target.config.get_user().unwrap_or("-"),
        password.as_deref().unwrap_or("-"),
        servers.collect::<Vec<_>>().join(","),
        target.config.get_dbname().unwrap_or("-"),
    )
}

#[track_caller]
fn assert_understood(url: &str, expected: &str) {
    match parse(url) {
        Ok(target) => assert_eq!(summary(&target), expected, "{url}"),
        Err(error) => panic!("{url}: {error}"),
    }
}

#[test]
fn urls_are_read_as_libpq_reads_them() {
    for (url, expected) in [
        (
            "postgresql://uri-user:secret@host:12345/db",
            "uri-user:secret@host:12345/db",
        ),
        (
            "postgresql://uri-user@host:12345/db",
            "uri-user:-@host:12345/db",
        ),
        ("postgresql://uri-user@host/db", "uri-user:-@host:5432/db"),
        ("postgresql://host:12345/db", "-:-@host:12345/db"),
        ("postgresql://host/db", "-:-@host:5432/db"),
        (
            "postgresql://uri-user@host:12345/",
            "uri-user:-@host:12345/-",
        ),
        ("postgresql://uri-user@host/", "uri-user:-@host:5432/-"),
        ("postgresql://uri-user@", "uri-user:-@localhost:5432/-"),
        ("postgresql://host:12345/", "-:-@host:12345/-"),
        ("postgresql://host:12345", "-:-@host:12345/-"),
        ("postgresql://host/", "-:-@host:5432/-"),
        ("postgresql://host", "-:-@host:5432/-"),
        ("postgresql://", "-:-@localhost:5432/-"),
        ("postgresql:///db", "-:-@localhost:5432/db"),
        (
            "postgresql://?hostaddr=127.0.0.1",
            "-:-@127.0.0.1:5432(127.0.0.1)/-",
        ),
        (
            "postgresql://example.com?hostaddr=63.1.2.4",
            "-:-@example.com:5432(63.1.2.4)/-",
        ),
        ("postgresql://host/?user=other", "other:-@host:5432/-"),
        ("postgresql://host?user=other&port=1", "other:-@host:1/-"),
        (
            "postgresql://u@host:1/db?user=other&port=2&host=h",
            "other:-@h:2/db",
        ),
        (
            "postgresql://%75ser@%68ost/%64b?%70ort=7",
            "user:-@host:7/db",
        ),
        ("postgres://[::1]/db", "-:-@[::1]:5432/db"),
        (
            "postgres://user@[2001:db8::1234]:7/",
            "user:-@[2001:db8::1234]:7/-",
        ),
        ("postgres://[::1]", "-:-@[::1]:5432/-"),
        (
            "postgres://?host=/path/to/socket/dir",
            "-:-@/path/to/socket/dir:5432/-",
        ),
        (
            "postgres:///db?host=/var/run/postgresql&port=7",
            "-:-@/var/run/postgresql:7/db",
        ),
        (
            "postgres://%2Fvar%2Frun%2Fpostgresql/db",
            "-:-@/var/run/postgresql:5432/db",
        ),
        ("postgres://%2Ftmp:7/db", "-:-@/tmp:7/db"),
        ("postgres://:7/db?host=/tmp", "-:-@/tmp:7/db"),
        ("postgres://a,b:7,[::1]:8/db", "-:-@a:5432,b:7,[::1]:8/db"),
        ("postgres://u:p@a,b/db?port=7", "u:p@a:7,b:7/db"),
        ("postgres://u:p@/db?host=a,b&port=7,8", "u:p@a:7,b:8/db"),
        (
            "postgres://a,b/db?hostaddr=1.1.1.1,",
            "-:-@a:5432(1.1.1.1),b:5432/db",
        ),
        // Passwords as people have them.
        (
            "postgres://u:p%40ss%2Fw%3Ard@host/db",
            "u:p@ss/w:rd@host:5432/db",
        ),
        ("postgres://u:p:w@host/db", "u:p:w@host:5432/db"),
        ("postgres://u:p@w@host/db", "u:p@w@host:5432/db"),
        ("postgres://u:p?w@host/db?port=1", "u:p?w@host:1/db"),
        ("postgres://u:p#w@host/db", "u:p#w@host:5432/db"),
        ("postgres://u:%C3%BC%20@host/db", "u:ü @host:5432/db"),
        ("postgres://u:@host/db", "u:-@host:5432/db"),
        (
            "postgres://host?user=me@realm",
            "host?user=me:-@realm:5432/-",
        ),
        (
            "postgres://host/db?user=me%40realm&password=a=b",
            "me@realm:a=b@host:5432/db",
        ),
        (" postgres://host \n", "-:-@host:5432/-"),
    ] {
        assert_understood(url, expected);
    }
}

#[test]
fn pairs_are_read_as_libpq_reads_them() {
    for (text, expected) in [
        ("host=h port=7 user=u password=p dbname=d", "u:p@h:7/d"),
        (" host = h\n user= u ", "u:-@h:5432/-"),
        (
            "host=h password='with space' user='it\\'s'",
            "it's:with space@h:5432/-",
        ),
        (
            "host=h password=back\\\\slash\\ space",
            "-:back\\slash space@h:5432/-",
        ),
        ("host=h password=''", "-:-@h:5432/-"),
        ("host='' dbname=d", "-:-@localhost:5432/d"),
        ("host=a,b port=1,2", "-:-@a:1,b:2/-"),
        ("host=/tmp user=u", "u:-@/tmp:5432/-"),
        ("host=a host=b", "-:-@b:5432/-"),
        ("host=h password='a@b/c?d=e'", "-:a@b/c?d=e@h:5432/-"),
    ] {
        assert_understood(text, expected);
    }
}

#[track_caller]
fn assert_refused(cases: &[(&str, &str)]) {
    for (url, part) in cases {
        let Err(error) = parse(url) else {
            panic!("{url} is understood");
        };
        assert!(error.starts_with("url: "), "{url}: {error}");
        assert!(error.contains(part), "{url}: {error}");
        assert!(!error.contains("hunter2"), "{url}: {error}");
    }
}

#[test]
fn what_is_wrong_is_said_without_the_password() {
    assert_refused(&[
        ("", "empty"),
        ("   ", "empty"),
        ("localhost", "name=value"),
        ("mysql://u:hunter2@host/db", "postgres://"),
        ("http://u:hunter2@host", "postgres://"),
        ("postgres://u:hunter2%zz@host/db", "the password has a '%'"),
        ("postgres://u:hunter2%@host/db", "the password has a '%'"),
        ("postgres://u:hunter2%f@host/db", "the password has a '%'"),
        (
            "postgres://u:hunter2%FF@host/db",
            "the password is not UTF-8",
        ),
        ("postgres://u:hunter2%00@host/db", "password: U+0000"),
        ("postgres://u:x/hunter2@host/db", "%2F"),
        ("postgres://u:1/hunter2@host/db", "%2F"),
        ("postgres://u:x@hunter2/hunter2@host/db", "%40"),
        ("postgres://u:x@/hunter2@host/db", "%40"),
        ("postgres://u:x@hunter2?hunter2=y@host/db", "%3F"),
        ("postgres://u:1/hunter2?user=y@host/db", "%3F"),
        ("postgres://u:x@hunter2?options=y@host/db", "%40"),
        ("postgres://host/db?user=me@hunter2", "%40"),
        ("postgres://u:hunter2@[::1/db", "']'"),
        ("postgres://u:hunter2@[]/db", "no address"),
        ("postgres://u:hunter2@[::1]x/db", "only a port"),
        ("postgres://u:hunter2@host:x/db", "port: "),
        ("postgres://u:hunter2@host:0/db", "port: "),
        ("postgres://u:hunter2@host:65536/db", "port: "),
        (
            "postgres://u:hunter2@a,b/db?port=1,2,3",
            "port: there are 3 for 2 hosts",
        ),
        (
            "postgres://u:hunter2@a,b/db?hostaddr=1.1.1.1",
            "hostaddr: there are 1 for 2 hosts",
        ),
        ("postgres://u:hunter2@host/db?hostaddr=host", "hostaddr: "),
        ("postgres://u:hunter2@host/db?sslmode", "no '='"),
        (
            "postgres://u:hunter2@host/db?sslmode=maybe",
            "sslmode: it must be disable or allow or",
        ),
        (
            "postgres://u:hunter2@host/db?sslmod=require",
            "sslmod: it is no parameter",
        ),
        (
            "postgres://u:hunter2@host/db?ssl=false",
            "ssl: it is no parameter",
        ),
        (
            "postgres://host/db?password=x&hunter2=y",
            "a parameter: it is no parameter",
        ),
        (
            "host=h password=a hunter2=b",
            "a parameter: it is no parameter",
        ),
        (
            "host=h password=a user=u hunter=b",
            "a parameter: it is no parameter",
        ),
        (
            "postgres://host/db?password=a&user=u&hunter=b",
            "a parameter: it is no parameter",
        ),
        (
            "postgres://host/db?password=a&oauth_hunter=b",
            "a parameter: it is no parameter",
        ),
        ("host=h password=a hunter2", "name=value"),
        ("host=h password='hunter2", "not closed"),
        ("host=h password=x hunter2@h", "name=value"),
        ("host=u:hunter2@h", "host: it can't contain an '@'"),
    ]);
}

#[test]
fn parameters_that_can_not_be_honoured_are_refused() {
    assert_refused(&[
        ("postgres://h/db?sslcrl=/a", "sslcrl: revocation lists"),
        (
            "postgres://h/db?sslcrldir=/a",
            "sslcrldir: revocation lists",
        ),
        (
            "postgres://h/db?sslpassword=hunter2",
            "sslpassword: encrypted keys",
        ),
        ("postgres://h/db?sslkeylogfile=a", "sslkeylogfile: "),
        ("postgres://h/db?requirepeer=postgres", "requirepeer: "),
        (
            "postgres://h/db?require_auth=scram-sha-256",
            "require_auth: ",
        ),
        (
            "postgres://h/db?passfile=/a",
            "passfile: password files are not read",
        ),
        (
            "postgres://h/db?service=a",
            "service: service files are not read",
        ),
        ("postgres://h/db?oauth_issuer=a", "oauth_issuer: OAuth"),
        (
            "postgres://h/db?schema=a",
            "schema: the schema is an option",
        ),
        (
            "postgres://h/db?gssencmode=require",
            "gssencmode: it must be disable or prefer",
        ),
        (
            "postgres://h/db?replication=database",
            "replication: it must be",
        ),
        (
            "postgres://h/db?sslcertmode=require",
            "sslcertmode: it must be allow or disable",
        ),
        (
            "postgres://h/db?target_session_attrs=read-only",
            "a store has to write",
        ),
        (
            "postgres://h/db?target_session_attrs=standby",
            "a store has to write",
        ),
        (
            "postgres://h/db?target_session_attrs=x",
            "target_session_attrs: it must be any or",
        ),
        (
            "postgres://h/db?connect_timeout=soon",
            "connect_timeout: it must be a whole number",
        ),
        (
            "postgres://h/db?sslmode=verify-ca",
            "verify-ca needs sslrootcert",
        ),
        (
            "postgres://h/db?sslmode=require&sslrootcert=system",
            "needs verify-full",
        ),
        (
            "postgres://h/db?sslnegotiation=direct",
            "needs at least require",
        ),
        ("postgres://h/db?sslcert=a", "sslkey: "),
        ("postgres://h/db?sslkey=a", "sslcert: "),
        (
            "postgres://h/db?ssl_max_protocol_version=TLSv1.1",
            "it must be TLSv1.2 or TLSv1.3",
        ),
        (
            "postgres://h/db?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "is above",
        ),
    ]);
}

#[test]
fn parameters_without_effect_are_taken() {
    for parameter in [
        "gssencmode=prefer",
        "gssencmode=disable",
        "gsslib=gssapi",
        "gssdelegation=0",
        "krbsrvname=postgres",
        "sslcompression=0",
        "client_encoding=latin1",
        "replication=false",
        "min_protocol_version=3.0",
        "max_protocol_version=latest",
        "sslcrl=",
        "passfile=",
        "sslsni=0",
        "sslcertmode=disable",
        "sslmode=",
    ] {
        let url = format!("postgres://h/db?{parameter}");
        assert!(parse(&url).is_ok(), "{url}: {:?}", parse(&url));
    }
}

#[test]
fn neither_debug_nor_the_description_shows_the_password() {
    let target = parse("postgres://ada:hunter2@a,b:7/app").unwrap();
    assert_eq!(target.describe(), "a:5432,b:7/app as ada");
    assert_eq!(
        format!("{target:?}"),
        "ConnectionTarget(\"a:5432,b:7/app as ada\")"
    );
    let other = target.with_database("other");
    assert_eq!(other.describe(), "a:5432,b:7/other as ada");
    assert_eq!(other.database(), Some("other"));
    let tls = TlsOptions {
        key: Some(b"hunter2".to_vec()),
        ..TlsOptions::default()
    };
    assert!(!format!("{tls:?}").contains("104"), "{tls:?}");
}

#[test]
fn root_certificates_decide_how_much_is_verified() {
    for (parameters, expected) in [
        ("", SslMode::Prefer),
        ("ssl=true", SslMode::Require),
        ("sslmode=disable", SslMode::Disable),
        ("sslmode=allow", SslMode::Allow),
        ("sslmode=require", SslMode::Require),
        ("sslmode=require&sslrootcert=/ca", SslMode::VerifyCa),
        ("sslmode=prefer&sslrootcert=/ca", SslMode::Prefer),
        ("sslmode=verify-ca&sslrootcert=/ca", SslMode::VerifyCa),
        ("sslmode=verify-full", SslMode::VerifyFull),
        ("sslrootcert=system", SslMode::VerifyFull),
        ("sslrootcert=/ca", SslMode::Prefer),
    ] {
        let target = parse(&format!("postgres://h/db?{parameters}")).unwrap();
        assert_eq!(target.ssl_mode, expected, "{parameters}");
    }
    let with_ca = PostgresStoreOptions {
        tls: TlsOptions {
            ca: Some(b"pem".to_vec()),
            ..TlsOptions::default()
        },
        ..PostgresStoreOptions::default()
    };
    for (parameters, expected) in [
        ("", SslMode::VerifyFull),
        ("sslmode=require", SslMode::VerifyCa),
        ("sslmode=disable", SslMode::Disable),
    ] {
        let target = parse_with(&format!("postgres://h/db?{parameters}"), &with_ca).unwrap();
        assert_eq!(target.ssl_mode, expected, "{parameters} and options.tls.ca");
    }
}

#[test]
fn the_rest_of_the_parameters_arrives() {
    let target = parse(
        "postgres://h/db?application_name=app&options=-c%20geqo%3Doff&connect_timeout=3\
         &keepalives=0&keepalives_idle=5&keepalives_interval=6&keepalives_count=7\
         &tcp_user_timeout=1500&load_balance_hosts=random&channel_binding=require\
         &sslmode=require&sslnegotiation=direct",
    )
    .unwrap();
    let config = &target.config;
    assert_eq!(config.get_application_name(), Some("app"));
    assert_eq!(config.get_options(), Some("-c geqo=off"));
    assert_eq!(target.connect_timeout().as_secs(), 3);
    assert!(!config.get_keepalives());
    assert_eq!(config.get_keepalives_idle().as_secs(), 5);
    assert_eq!(config.get_keepalives_interval().unwrap().as_secs(), 6);
    assert_eq!(config.get_keepalives_retries(), Some(7));
    assert_eq!(config.get_tcp_user_timeout().unwrap().as_millis(), 1500);
    assert!(target.random_order);
    assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(config.get_ssl_negotiation(), SslNegotiation::Direct);
}

#[test]
fn an_option_names_the_application_before_the_url() {
    let named = PostgresStoreOptions {
        application_name: Some("mine".to_owned()),
        ..PostgresStoreOptions::default()
    };
    let name = |url: &str, options: &PostgresStoreOptions| {
        let target = parse_with(url, options).unwrap();
        target.config.get_application_name().unwrap().to_owned()
    };
    let plain = PostgresStoreOptions::default();
    assert_eq!(name("postgres://h/db", &plain), "factstr");
    assert_eq!(
        name("postgres://h/db?fallback_application_name=f", &plain),
        "f"
    );
    assert_eq!(name("postgres://h/db?application_name=url", &plain), "url");
    assert_eq!(name("postgres://h/db?application_name=url", &named), "mine");
}

#[test]
fn a_store_looks_for_a_server_that_takes_writes() {
    use TargetSessionAttrs::{Any, ReadWrite};
    for (url, expected) in [
        ("postgres://a/db", Any),
        ("postgres://a,b/db", ReadWrite),
        ("postgres://a,b/db?target_session_attrs=any", Any),
        ("postgres://a/db?target_session_attrs=read-write", ReadWrite),
        ("postgres://a/db?target_session_attrs=primary", ReadWrite),
        (
            "postgres://a,b/db?target_session_attrs=prefer-standby",
            ReadWrite,
        ),
    ] {
        let target = parse(url).unwrap();
        assert_eq!(target.config.get_target_session_attrs(), expected, "{url}");
    }
}

#[test]
fn a_timeout_of_the_url_is_for_each_host() {
    let in_all = |url: &str| parse(url).unwrap().connect_timeout().as_secs();
    assert_eq!(in_all("postgres://a,b/db"), 10);
    assert_eq!(in_all("postgres://a,b/db?connect_timeout=3"), 6);
    // Zero means "without a limit" to libpq, and a store has one.
    assert_eq!(in_all("postgres://a,b/db?connect_timeout=0"), 10);
}

#[test]
fn options_are_checked() {
    let wrong = |change: fn(&mut PostgresStoreOptions), expected: &str| {
        let mut options = PostgresStoreOptions::default();
        change(&mut options);
        let error = parse_with("postgres://h/db", &options).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    };
    wrong(|options| options.schema = String::new(), "options.schema: ");
    wrong(
        |options| options.schema = "x".repeat(64),
        "options.schema: ",
    );
    wrong(
        |options| options.schema = "a\0b".to_owned(),
        "options.schema: ",
    );
    wrong(
        |options| options.schema = "pg_mine".to_owned(),
        "options.schema: ",
    );
    wrong(
        |options| options.max_connections = 0,
        "options.max_connections: ",
    );
    wrong(
        |options| options.connect_timeout = std::time::Duration::ZERO,
        "options.connect_timeout: ",
    );
    wrong(
        |options| options.tls.cert = Some(Vec::new()),
        "options.tls.key: ",
    );
    let strange = PostgresStoreOptions {
        schema: "It's \"quoted\" – ü".to_owned(),
        ..PostgresStoreOptions::default()
    };
    assert!(parse_with("postgres://h/db", &strange).is_ok());
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02x}").unwrap();
        encoded
    })
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What a password may be made of that nobody has encoded.
fn pieces(separators: &'static str) -> impl Strategy<Value = String> {
    let piece = prop_oneof![3 => "[A-Z]{4,6}", 1 => "[6-9]{1,5}", 3 => separators];
    prop::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

/// Four characters of the password that stand in the text. Capitals and these digits are in no message
/// by themselves.
fn leaked(password: &str, text: &str) -> Option<String> {
    let characters: Vec<char> = password.chars().collect();
    let windows = characters.windows(4).map(|window| window.iter().collect());
    windows
        .filter(|window: &String| window.contains(|c: char| matches!(c, 'A'..='Z' | '6'..='9')))
        .find(|window| text.contains(window.as_str()))
}

/// All that is ever said of a URL.
fn said(url: &str) -> String {
    match parse(url) {
        Ok(target) => format!("{} {target:?}", target.describe()),
        Err(error) => error,
    }
}

proptest! {
    #[test]
    fn nothing_is_said_of_a_password_that_is_not_encoded(
        password in pieces(
            "[@/?#:%&= '\\\\,\\[\\]]|[/@?&](user|password|dbname|host|port|options|ssl|[a-z]{4})=|@/|%4|%[2-4]f|://",
        ),
        place in prop_oneof![
            Just("127.0.0.1:1/db"),
            Just("a,b:2/db?sslmode=disable"),
            Just("[::1]"),
            Just("/db?host=/tmp"),
            Just("?port=1"),
        ],
    ) {
        for scheme in ["postgres://", "postgresql://", "postgresql:", "postgres:/", "jdbc:postgresql://", ""] {
            let url = format!("{scheme}shop:{password}@{place}");
            let said = said(&url);
            prop_assert_eq!(leaked(&password, &said), None, "{}: {}", url, said);
        }
    }

    /// Where it stands among other parameters, what looks like one of them is one.
    #[test]
    fn nothing_is_said_of_a_password_among_parameters(
        password in pieces("[@/?#:%&= '\\\\,\\[\\]]|[& ?](oauth_|ssl|[a-z]{4,5}_?)|%4|://"),
    ) {
        for url in [
            format!("postgres://127.0.0.1:1/db?user=shop&password={password}"),
            format!("postgres://127.0.0.1:1/db?password={password}&user=shop"),
            format!("host=127.0.0.1 user=shop password={password} dbname=db"),
            format!("host=127.0.0.1 user=shop password='{password}' dbname=db"),
        ] {
            let said = said(&url);
            prop_assert_eq!(leaked(&password, &said), None, "{}: {}", url, said);
        }
    }

    #[test]
    fn any_password_arrives(password in "[^\0]{1,20}", user in "[^\0]{1,8}") {
        let url = format!("postgres://{}:{}@h/db", encoded(&user), encoded(&password));
        let pairs = format!("host=h user={} password={}", quoted(&user), quoted(&password));
        for text in [url, pairs] {
            let target = parse(&text).unwrap();
            prop_assert_eq!(target.config.get_password().unwrap(), password.as_bytes());
            prop_assert_eq!(target.config.get_user().unwrap(), user.as_str());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}", url in "[a-b:@/?&=%,\\[\\]0-1' é]{0,30}") {
        for text in [text.clone(), url.clone(), format!("postgres://{url}"), format!("host={text}")] {
            let _ = parse(&text);
        }
    }
}
