//! Values: immutable, and shared between the map and whoever reads, so that a read copies a pointer and no text.

use std::sync::Arc;

/// A value: UTF-8 text that is never changed, only replaced. Cloning it is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Arc<str>);

impl Value {
    /// A value that was put as text.
    pub fn text(text: &str) -> Value {
        Value(text.into())
    }

    /// The value as the plain API returns it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
