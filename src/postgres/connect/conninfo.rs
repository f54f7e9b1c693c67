//! `host=… port=… dbname='with spaces'`, as libpq reads it.

use std::iter::Peekable;
use std::str::Chars;

/// Reads `name = value` pairs; a later one replaces an earlier one.
///
/// No message repeats a part of the text: a password with spaces that is not quoted falls into many.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        skip_spaces(&mut rest);
        if rest.peek().is_none() {
            return Ok(pairs);
        }
        let mut name = String::new();
        while let Some(character) = rest.next_if(|next| *next != '=' && !next.is_whitespace()) {
            name.push(character);
        }
        skip_spaces(&mut rest);
        if rest.next_if_eq(&'=').is_none() || name.is_empty() {
            return Err(
                "it must be name=value pairs; a value with spaces stands in single quotes"
                    .to_owned(),
            );
        }
        skip_spaces(&mut rest);
        let value = match rest.next_if_eq(&'\'') {
            Some(_) => quoted(&mut rest)?,
            None => unquoted(&mut rest),
        };
        pairs.push((name, value));
    }
}

fn skip_spaces(rest: &mut Peekable<Chars>) {
    while rest.next_if(|next| next.is_whitespace()).is_some() {}
}

fn quoted(rest: &mut Peekable<Chars>) -> Result<String, String> {
    let mut value = String::new();
    loop {
        match rest.next() {
            Some('\'') => return Ok(value),
            Some('\\') => value.extend(rest.next()),
            Some(character) => value.push(character),
            None => return Err("a value's single quote is not closed".to_owned()),
        }
    }
}

fn unquoted(rest: &mut Peekable<Chars>) -> String {
    let mut value = String::new();
    while let Some(character) = rest.next_if(|next| !next.is_whitespace()) {
        match character {
            '\\' => value.extend(rest.next()),
            _ => value.push(character),
        }
    }
    value
}
