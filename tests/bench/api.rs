//! The same few things asked in the way of each server: requests as bytes, and values out of answers.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

/// How the values begin whose events are counted.
pub const WATCHED_SIGN: &str = ">>>_AA";

/// How a server is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Plain,
    Json,
    /// Answers everything with a constant.
    Constant,
    Webdis,
    Etcd,
}

impl Api {
    pub fn get(self, key: &str, headers: &str) -> Vec<u8> {
        match self {
            Api::Plain | Api::Constant => request("GET", &format!("/kv/{key}"), headers, ""),
            Api::Json => request("GET", &format!("/api/v1/kv/{key}"), headers, ""),
            // As text, since JSON would cost Redis more than the others.
            Api::Webdis => request("GET", &format!("/GET/{key}.txt"), headers, ""),
            Api::Etcd => {
                let body = json!({"key": BASE64_STANDARD.encode(key)}).to_string();
                request("POST", "/v3/kv/range", headers, &body)
            }
        }
    }

    pub fn put(self, key: &str, value: &str, headers: &str) -> Vec<u8> {
        match self {
            Api::Plain | Api::Constant => request("PUT", &format!("/kv/{key}"), headers, value),
            Api::Json => {
                let body = json!({"value": value}).to_string();
                request("PUT", &format!("/api/v1/kv/{key}"), headers, &body)
            }
            Api::Webdis => request("PUT", &format!("/SET/{key}"), headers, value),
            Api::Etcd => {
                let [key, value] = [key, value].map(|text| BASE64_STANDARD.encode(text));
                let body = json!({"key": key, "value": value}).to_string();
                request("POST", "/v3/kv/put", headers, &body)
            }
        }
    }

    /// A request that sets many keys at once; none where there is no such thing.
    pub fn put_many(self, items: &[(String, String)], headers: &str) -> Option<Vec<u8>> {
        match self {
            Api::Plain | Api::Json => Some(put_many_for(items, None, headers)),
            Api::Webdis => {
                let words = items.iter().flat_map(|(key, value)| ["/", key, "/", value]);
                let body: String = ["MSET"].into_iter().chain(words).collect();
                Some(request("POST", "/", headers, &body))
            }
            Api::Etcd => Some(put_in_one_txn(items, headers)),
            Api::Constant => None,
        }
    }

    /// A request for the values of many keys; none where there is no such thing, or it is not compared.
    pub fn get_many(self, keys: &[String], headers: &str) -> Option<Vec<u8>> {
        self.of_many(keys, headers, ["get", "MGET"])
    }

    /// A request to delete many keys.
    pub fn delete_many(self, keys: &[String], headers: &str) -> Option<Vec<u8>> {
        self.of_many(keys, headers, ["delete", "DEL"])
    }

    fn of_many(
        self,
        keys: &[String],
        headers: &str,
        [path, command]: [&str; 2],
    ) -> Option<Vec<u8>> {
        match self {
            Api::Plain | Api::Json => {
                let body = json!({"keys": keys}).to_string();
                let path = format!("/api/v1/kv/bulk/{path}");
                Some(request("POST", &path, headers, &body))
            }
            Api::Webdis => {
                let body = format!("{command}/{}", keys.join("/"));
                Some(request("POST", "/", headers, &body))
            }
            Api::Constant | Api::Etcd => None,
        }
    }

    /// A request to be told of the changes of a key; nobody but threadkv and etcd knows it.
    pub fn watch(self, key: &str) -> Vec<u8> {
        match self {
            Api::Etcd => {
                let key = BASE64_STANDARD.encode(key);
                let body = json!({"create_request": {"key": key}}).to_string();
                request("POST", "/v3/watch", "", &body)
            }
            _ => request("GET", &format!("/api/v1/watch?key={key}"), "", ""),
        }
    }

    /// What the answer to such a request has in it when it has begun.
    pub fn watching(self) -> &'static str {
        match self {
            Api::Etcd => "\"created\":true",
            _ => "event: ready",
        }
    }

    /// A byte that an event has exactly once if its value begins with [`WATCHED_SIGN`] and has letters and digits else.
    pub fn counted(self) -> u8 {
        match self {
            Api::Etcd => b'+', // ">>>" is "Pj4+"
            _ => b'_',
        }
    }

    /// Where a value ends in the text of an event, if it is there whole.
    pub fn end_of_value(self, text: &[u8], value: &str) -> Option<usize> {
        let value = match self {
            Api::Etcd => BASE64_STANDARD.encode(value),
            _ => value.to_owned(),
        };
        let mut windows = text.windows(value.len());
        let start = windows.position(|window| window == value.as_bytes())?;
        Some(start + value.len())
    }

    /// The value that a GET was answered with.
    pub fn value(self, body: &[u8]) -> Option<String> {
        let field = |pointer| {
            let body: Value = serde_json::from_slice(body).ok()?;
            body.pointer(pointer)?.as_str().map(str::to_owned)
        };
        match self {
            Api::Plain | Api::Constant | Api::Webdis => String::from_utf8(body.to_vec()).ok(),
            Api::Json => field("/data/value"),
            Api::Etcd => {
                let value = BASE64_STANDARD.decode(field("/kvs/0/value")?).ok()?;
                String::from_utf8(value).ok()
            }
        }
    }
}

/// threadkv's request to set many keys at once, all of which expire after so many seconds.
pub fn put_many_for(items: &[(String, String)], ttl: Option<u64>, headers: &str) -> Vec<u8> {
    let operation = |(key, value): &(String, String)| match ttl {
        Some(ttl) => json!({"key": key, "value": value, "ttl": ttl}),
        None => json!({"key": key, "value": value}),
    };
    let operations: Vec<Value> = items.iter().map(operation).collect();
    let body = json!({"operations": operations}).to_string();
    request("POST", "/api/v1/kv/bulk", headers, &body)
}

/// etcd's request to put many keys in one step. It takes 128 operations in one transaction, and transactions as operations.
fn put_in_one_txn(items: &[(String, String)], headers: &str) -> Vec<u8> {
    let put = |(key, value): &(String, String)| {
        let [key, value] = [key, value].map(|text| BASE64_STANDARD.encode(text));
        json!({"request_put": {"key": key, "value": value}})
    };
    let part = |items: &[(String, String)]| {
        let puts: Vec<Value> = items.iter().map(put).collect();
        json!({"request_txn": {"success": puts}})
    };
    let parts: Vec<Value> = items.chunks(100).map(part).collect();
    let body = json!({"success": parts}).to_string();
    request("POST", "/v3/kv/txn", headers, &body)
}

/// A request. Headers bring their line ends.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}{length}\r\n{body}")
        .into_bytes()
}

/// The name of a key: 16 bytes, always.
pub fn key(index: u32) -> String {
    format!("key:{index:012}")
}

/// Its value: letters and digits, which no API has to write in another way.
pub fn value(index: u32, bytes: usize) -> String {
    let part = format!("value{index:012}");
    part.bytes().cycle().take(bytes).map(char::from).collect()
}

pub fn items(indices: impl Iterator<Item = u32>, value_bytes: usize) -> Vec<(String, String)> {
    indices
        .map(|index| (key(index), value(index, value_bytes)))
        .collect()
}
