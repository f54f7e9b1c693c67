//! `postgresql://user:password@host:port,…/database?parameter=value&…`, as libpq reads it.
//!
//! No message repeats a part of the URL: where a password's characters are not percent-encoded, any
//! part may be a piece of it.

/// Reads a URL, without its scheme, as a list of parameters; a later one replaces an earlier one.
pub(super) fn parse(rest: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let (authority, rest) = rest.split_at(end_of_authority(rest));
    // libpq takes it. But it may be the one that ends the password, and all before it a piece of that,
    // which messages would show as a host, a database or a parameter.
    if rest.contains('@') {
        return Err(
            "there is an '@' after the first '/' or '?': write '@', '/' and '?' in the user or password as \
             %40, %2F and %3F, and an '@' in the database or a parameter as %40"
                .to_owned(),
        );
    }

    // No host contains an '@', so the last one ends the password.
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (Some(credentials), hosts),
        None => (None, authority),
    };
    let (user, password) = match credentials {
        Some(credentials) => credentials.split_once(':').unwrap_or((credentials, "")),
        None => ("", ""),
    };
    push(&mut pairs, "user", decode(user, "the user")?);
    let password = decode(password, "the password")?;
    parse_hosts(hosts, &mut pairs)?;

    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, query),
        None => (rest, ""),
    };
    let database = path.strip_prefix('/').unwrap_or(path);
    push(&mut pairs, "dbname", decode(database, "the database")?);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err("a parameter after the '?' has no '='".to_owned());
        };
        let name = decode(name, "the name of a parameter")?;
        let value = decode(value, "the value of a parameter")?;
        // As JDBC writes it, which libpq takes too.
        if name == "ssl" && value == "true" {
            pairs.push(("sslmode".to_owned(), "require".to_owned()));
        } else {
            pairs.push((name, value));
        }
    }
    // After a password no name is shown. This one has ended, so it comes last, unless it is replaced.
    if !pairs.iter().any(|(name, _)| name == "password") {
        push(&mut pairs, "password", password);
    }
    Ok(pairs)
}

/// The authority ends before the '/' or '?'; a '?' in the user or password does not end it.
fn end_of_authority(rest: &str) -> usize {
    let end = rest.find('/').unwrap_or(rest.len());
    let hosts = rest[..end].find('@').unwrap_or(0);
    rest[hosts..end].find('?').map_or(end, |end| hosts + end)
}

fn push(pairs: &mut Vec<(String, String)>, name: &str, value: String) {
    if !value.is_empty() {
        pairs.push((name.to_owned(), value));
    }
}

/// `host:port,[::1]:port,…` as one list of hosts and one of ports.
fn parse_hosts(text: &str, pairs: &mut Vec<(String, String)>) -> Result<(), String> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in text.split(',') {
        let (host, port) = if let Some(inside) = place.strip_prefix('[') {
            let Some((host, after)) = inside.split_once(']') else {
                return Err("a '[' of the host has no ']'".to_owned());
            };
            if host.is_empty() {
                return Err("there is no address between the '[' and ']' of the host".to_owned());
            }
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return Err("after the ']' of a host only a port may follow".to_owned()),
            }
        } else {
            place.split_once(':').unwrap_or((place, ""))
        };
        hosts.push(decode(host, "the host")?);
        ports.push(decode(port, "the port")?);
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        pairs.push(("host".to_owned(), hosts.join(",")));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.push(("port".to_owned(), ports.join(",")));
    }
    Ok(())
}

fn decode(text: &str, what: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let value = match rest {
            [high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        let Some((high, low)) = value else {
            return Err(format!(
                "{what} has a '%' without two hexadecimal digits; a '%' is %25"
            ));
        };
        bytes.push(high << 4 | low);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}
