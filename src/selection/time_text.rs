use time::OffsetDateTime;

use super::occurred_at_from_micros;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Times as RFC 3339 text in UTC, always with six digits of a second, unlike the general formatter of
/// the `time` crate. Neighbours in a result are mostly of one batch or of one day, so the last text is
/// kept and changed only as far as it differs.
#[derive(Debug)]
pub(crate) struct TimeText {
    micros: i64,
    day: i64,
    /// `YYYY-MM-DDThh:mm:ss.ffffffZ`
    text: [u8; 27],
}

impl Default for TimeText {
    fn default() -> Self {
        Self {
            micros: 0,
            day: 0,
            text: *b"1970-01-01T00:00:00.000000Z",
        }
    }
}

impl TimeText {
    /// The text of a time in microseconds since 1970.
    pub(crate) fn of(&mut self, micros: i64) -> &str {
        if micros != self.micros {
            self.micros = micros;
            self.write(micros);
        }
        // Only ASCII is ever written into it.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    fn write(&mut self, micros: i64) {
        let day = micros.div_euclid(MICROS_PER_DAY);
        if day != self.day {
            self.day = day;
            self.write_date(occurred_at_from_micros(micros));
        }
        let of_day = micros.rem_euclid(MICROS_PER_DAY);
        let seconds = (of_day / 1_000_000) as u32;
        digits(&mut self.text[11..13], seconds / 3_600);
        digits(&mut self.text[14..16], seconds / 60 % 60);
        digits(&mut self.text[17..19], seconds % 60);
        digits(&mut self.text[20..26], (of_day % 1_000_000) as u32);
    }

    fn write_date(&mut self, at: OffsetDateTime) {
        digits(&mut self.text[0..4], at.year().unsigned_abs());
        digits(&mut self.text[5..7], u8::from(at.month()).into());
        digits(&mut self.text[8..10], at.day().into());
    }
}

fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::TimeText;

    #[test]
    fn times_have_microseconds_and_z() {
        let mut text = TimeText::default();
        assert_eq!(text.of(0), "1970-01-01T00:00:00.000000Z");
        let at = 1_778_400_930_123_456;
        assert_eq!(text.of(at), "2026-05-10T08:15:30.123456Z");
        assert_eq!(text.of(at), "2026-05-10T08:15:30.123456Z");
        assert_eq!(text.of(at + 60_000_000), "2026-05-10T08:16:30.123456Z");
        assert_eq!(text.of(at + 86_400_000_000), "2026-05-11T08:15:30.123456Z");
        assert_eq!(text.of(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(text.of(951_868_799_999_999), "2000-02-29T23:59:59.999999Z");
    }
}
