/// The name under which a durable stream stores its cursor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DurableStream {
    /// 1 to 255 bytes of UTF-8.
    pub name: String,
}

impl DurableStream {
    /// Names a durable stream.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}
