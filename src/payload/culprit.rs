//! Says where in a JSON text the error is. Runs only after the fast path has refused the text.

use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::MAX_DEPTH;

/// What is wrong with a JSON text, and where: `path: reason`. `None` when nothing is.
///
/// `levels_above` levels of nesting belong to what surrounds the payload, and are not counted.
pub(super) fn find_culprit(text: &str, root: &str, levels_above: u32) -> Option<String> {
    let mut path = root.to_owned();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let seed = Walk {
        path: &mut path,
        levels_left: MAX_DEPTH + levels_above,
    };
    let error = match seed.deserialize(&mut deserializer) {
        Ok(()) => deserializer.end().err()?,
        Err(error) => error,
    };
    Some(format!("{path}: {}", reason(&error)))
}

/// Words a parser's error for users: no line and column of a text that they never saw.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    // What serde_json says of a `\ud800` without its other half.
    match message {
        "lone leading surrogate in hex escape" | "unexpected end of hex escape" => {
            "a lone surrogate can't be stored".to_owned()
        }
        _ => message.to_owned(),
    }
}

pub(super) const NUL_REFUSED: &str = "the character U+0000 can't be stored";

/// On an error the path is left at the culprit.
struct Walk<'p> {
    path: &'p mut String,
    levels_left: u32,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        refuse_nul(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let levels_left = deeper(self.levels_left)?;
        let length = self.path.len();
        let mut index = 0;
        loop {
            self.path.truncate(length);
            let _ = write!(self.path, "[{index}]");
            if sequence
                .next_element_seed(Walk {
                    path: &mut *self.path,
                    levels_left,
                })?
                .is_none()
            {
                self.path.truncate(length);
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let levels_left = deeper(self.levels_left)?;
        let length = self.path.len();
        while let Some(key) = map.next_key::<String>()? {
            push_member(self.path, &key);
            refuse_nul::<A::Error>(&key)?;
            map.next_value_seed(Walk {
                path: &mut *self.path,
                levels_left,
            })?;
            self.path.truncate(length);
        }
        Ok(())
    }
}

/// Appends `.key`, or `["key"]` where the key is no plain name.
fn push_member(path: &mut String, key: &str) {
    let plain = key
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$');
    if plain && !key.is_empty() && key.len() <= 64 {
        let _ = write!(path, ".{key}");
    } else {
        let shown: String = key.chars().take(64).collect();
        let _ = write!(path, "[{shown:?}]");
    }
}

fn deeper<E: Error>(levels_left: u32) -> Result<u32, E> {
    levels_left
        .checked_sub(1)
        .ok_or_else(|| E::custom(format_args!("nested more than {MAX_DEPTH} levels deep")))
}

fn refuse_nul<E: Error>(value: &str) -> Result<(), E> {
    if value.contains('\0') {
        Err(E::custom(NUL_REFUSED))
    } else {
        Ok(())
    }
}
