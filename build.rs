//! Sets up linking for the Node.js addon; a plain Rust build needs nothing.

fn main() {
    #[cfg(feature = "node")]
    napi_build::setup();
}
