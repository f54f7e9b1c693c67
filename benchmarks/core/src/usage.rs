//! What the system has counted of this process: time on a processor, and how often a thread was put aside.

use serde_json::{Value, json};

/// Sums since the process began.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    cpu_micros: i64,
    /// A thread had to wait for something: each time, something has to wake it.
    voluntary: i64,
    /// A thread had to make room for another one.
    involuntary: i64,
}

impl Usage {
    #[cfg(unix)]
    // The widths of these fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    pub(crate) fn now() -> Self {
        let mut found = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is to a `rusage` that is ours.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, found.as_mut_ptr()) };
        // SAFETY: zeroes are a valid `rusage`, whether it was written or not.
        let found = unsafe { found.assume_init() };
        let micros = |time: libc::timeval| time.tv_sec as i64 * 1_000_000 + time.tv_usec as i64;
        Self {
            cpu_micros: micros(found.ru_utime) + micros(found.ru_stime),
            voluntary: found.ru_nvcsw as i64,
            involuntary: found.ru_nivcsw as i64,
        }
    }

    /// Windows tells nothing of the kind, nor does Node.js there.
    #[cfg(not(unix))]
    pub(crate) fn now() -> Self {
        Self::default()
    }

    /// What there was since then.
    pub(crate) fn told(self) -> Value {
        let now = Self::now();
        json!({
            "cpu": now.cpu_micros - self.cpu_micros,
            "voluntary": now.voluntary - self.voluntary,
            "involuntary": now.involuntary - self.involuntary,
        })
    }
}
