//! Numbers by exact value: `1`, `1.0` and `1e0` are one number, and so are `0` and `-0.0`.

/// A JSON number in its one representation: an integer wherever it is one that 64 bits hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// Not negative.
    Natural(u64),
    /// Below zero.
    Negative(i64),
    /// A fraction, or an integer beyond 64 bits.
    Float(f64),
}

impl Number {
    /// 2^64 and -2^63, which floats hold exactly.
    const NATURAL_END: f64 = 18_446_744_073_709_551_616.0;
    const NEGATIVE_START: f64 = -9_223_372_036_854_775_808.0;

    pub(super) fn from_i64(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Negative(number), Self::Natural)
    }

    pub(super) fn from_f64(number: f64) -> Self {
        if number.fract() != 0.0 {
            return Self::Float(number);
        }
        if (0.0..Self::NATURAL_END).contains(&number) {
            return Self::Natural(number as u64);
        }
        if (Self::NEGATIVE_START..0.0).contains(&number) {
            return Self::Negative(number as i64);
        }
        Self::Float(number)
    }

    /// The number as 9 bytes: a tag and 64 bits. Equal numbers have equal bytes.
    pub(super) fn to_bytes(self) -> [u8; 9] {
        let (tag, bits) = match self {
            Self::Natural(number) => (0, number),
            Self::Negative(number) => (1, number as u64),
            Self::Float(number) => (2, number.to_bits()),
        };
        let mut bytes = [tag; 9];
        bytes[1..].copy_from_slice(&bits.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Number;

    #[test]
    fn integral_floats_are_integers() {
        assert_eq!(Number::from_f64(1.0), Number::Natural(1));
        assert_eq!(Number::from_f64(-0.0), Number::Natural(0));
        assert_eq!(Number::from_f64(-3.0), Number::from_i64(-3));
        assert_eq!(
            Number::from_f64(9_223_372_036_854_775_808.0),
            Number::Natural(1 << 63)
        );
        assert_eq!(
            Number::from_f64(-9_223_372_036_854_775_808.0),
            Number::from_i64(i64::MIN)
        );
        assert_eq!(Number::from_f64(1e300), Number::Float(1e300));
        assert_eq!(Number::from_f64(0.5), Number::Float(0.5));
    }

    #[test]
    fn neighbours_beyond_float_precision_differ() {
        assert_ne!(
            Number::from_i64((1 << 53) + 1),
            Number::from_f64((1_u64 << 53) as f64)
        );
    }
}
