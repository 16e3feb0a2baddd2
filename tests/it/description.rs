//! The OpenAPI description that a server gives of itself, to hold its answers against.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::client::Response;
use crate::process::Server;

/// The description, and which of the operations and statuses in it have been seen.
pub struct Description {
    pub document: Value,
    pub seen: BTreeSet<(String, u16)>,
}

impl Description {
    pub fn of(server: &Server) -> Description {
        Description {
            document: server.get("/api/v1/openapi.json").json(),
            seen: BTreeSet::new(),
        }
    }

    /// Every operation, with its path and its method.
    pub fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let mut operations = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if method != "parameters" {
                    operations.push((&**path, &**method, operation));
                }
            }
        }
        operations
    }

    /// The operation that a request is for.
    pub fn operation(&self, method: &str, path: &str) -> &Value {
        let path = path.split('?').next().unwrap();
        let paths = self.document["paths"].as_object().unwrap();
        // A path without parameters goes before one with them, as OpenAPI has it.
        let template = paths.keys().find(|known| *known == path).or_else(|| {
            paths.keys().find(|known| {
                let Some((before, after)) = known.split_once("{key}") else {
                    return false;
                };
                let key = path
                    .strip_prefix(before)
                    .and_then(|rest| rest.strip_suffix(after));
                key.is_some_and(|key| !key.contains('/'))
            })
        });
        let template = template.unwrap_or_else(|| panic!("{path} is not described"));
        let operation = &paths[template][method.to_ascii_lowercase()];
        assert!(
            operation.is_object(),
            "{method} {template} is not described"
        );
        operation
    }

    /// Follows references.
    pub fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').unwrap();
                let target = self.document.pointer(pointer);
                self.resolve(target.unwrap_or_else(|| panic!("{reference} leads nowhere")))
            }
            None => node,
        }
    }

    pub fn json_of<'a>(&'a self, described: &'a Value) -> &'a Value {
        &self.resolve(described)["content"]["application/json"]
    }

    /// Checks an answer against what the description says of that operation.
    #[track_caller]
    pub fn check(
        &mut self,
        operation: &str,
        method: &str,
        path: &str,
        status: u16,
        answer: &Response,
    ) {
        let text = String::from_utf8_lossy(&answer.body);
        let request = format!("{operation}: {method} {path}: {text:.300}");
        assert_eq!(answer.status, status, "{request}");
        let described = self.operation(method, path);
        assert_eq!(described["operationId"], operation, "{request}");
        let response = &described["responses"][status.to_string()];
        assert!(response.is_object(), "{status} is not described, {request}");
        let content = &self.resolve(response)["content"];
        if content["application/json"].is_object() {
            self.expect(&self.json_of(response)["schema"], &answer.json(), &request);
        } else if let Some(types) = content.as_object() {
            let sent = answer.header("content-type").unwrap();
            let sent = sent.split(';').next().unwrap();
            assert!(types.contains_key(sent), "{sent}: {request}");
        } else {
            assert!(answer.body.is_empty(), "{request}");
            assert_eq!(answer.header("content-type"), None, "{request}");
        }
        if let Some(headers) = self.resolve(response)["headers"].as_object() {
            for (name, header) in headers {
                let header = self.resolve(header);
                let value = answer.header(&name.to_ascii_lowercase());
                let Some(value) = value else {
                    assert_eq!(header["required"], false, "{name} is missing: {request}");
                    continue;
                };
                // Numbers are to be numbers, and other texts are what they are.
                let number = value.parse::<u64>().ok();
                let value = number.map_or_else(|| Value::from(value), Value::from);
                self.expect(&header["schema"], &value, &request);
            }
        }
        // What matters is described.
        for name in ["Retry-After", "ETag"] {
            let described = &self.resolve(response)["headers"][name];
            let sent = answer.header(&name.to_ascii_lowercase());
            assert!(described.is_object() || sent.is_none(), "{name}: {request}");
        }
        self.seen.insert((operation.to_owned(), status));
    }

    #[track_caller]
    pub fn expect(&self, schema: &Value, value: &Value, what: &str) {
        assert!(schema.is_object(), "no schema for {what}");
        if let Err(mistake) = self.validate(schema, value) {
            panic!("{mistake} in {value:.500} of {what}");
        }
    }

    /// Checks a value against a schema, as far as the description goes: a keyword that is not known here is a failure.
    fn validate(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = self.resolve(schema);
        let keywords = schema.as_object().ok_or("a schema that is no object")?;
        if value.is_null() && schema["nullable"] == true {
            return Ok(());
        }
        for (keyword, rule) in keywords {
            let fine = match &**keyword {
                "description" | "default" | "example" | "nullable" => true,
                "type" => match rule.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("boolean") => value.is_boolean(),
                    Some("integer") => value.is_i64() || value.is_u64(),
                    _ => return Err(format!("unknown type {rule}")),
                },
                "format" => match rule.as_str() {
                    Some("int64") => value.as_i64().is_some(),
                    Some("date-time") => is_date_time(value.as_str().unwrap_or_default()),
                    _ => return Err(format!("unknown format {rule}")),
                },
                "enum" => rule.as_array().unwrap().contains(value),
                "pattern" => match rule.as_str() {
                    Some("^[A-Za-z0-9:_.-]{1,1024}$") => value.as_str().is_some_and(is_key),
                    Some("^threadkv@.") => value
                        .as_str()
                        .is_some_and(|text| text.len() > 9 && text.starts_with("threadkv@")),
                    Some(r#"^"[1-9][0-9]*"$"#) => value.as_str().is_some_and(is_tag),
                    Some(pattern) if pattern.starts_with(r#"^(\*|(W/)?"[!#-~]*""#) => {
                        let tags = value.as_str().unwrap_or_default();
                        tags == "*" || tags.split(", ").all(is_tag)
                    }
                    _ => return Err(format!("unknown pattern {rule}")),
                },
                "minimum" => value.as_f64() >= rule.as_f64(),
                "maximum" => value.as_f64() <= rule.as_f64(),
                "minLength" => value.as_str().map(|it| it.chars().count()) >= size(rule),
                "maxLength" => value.as_str().map(|it| it.chars().count()) <= size(rule),
                "minItems" => value.as_array().map(Vec::len) >= size(rule),
                "maxItems" => value.as_array().map(Vec::len) <= size(rule),
                "minProperties" => value.as_object().map(|it| it.len()) >= size(rule),
                "maxProperties" => value.as_object().map(|it| it.len()) <= size(rule),
                "required" => {
                    let mut names = rule.as_array().unwrap().iter();
                    names.all(|name| value.get(name.as_str().unwrap()).is_some())
                }
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.validate(rule, item)?;
                    }
                    true
                }
                "properties" => {
                    for (name, schema) in rule.as_object().unwrap() {
                        if let Some(value) = value.get(name) {
                            self.validate(schema, value)
                                .map_err(|it| format!("{name}: {it}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = |name: &String| schema["properties"].get(name).is_some();
                    let others = value.as_object().into_iter().flatten();
                    for (name, value) in others.filter(|(name, _)| !known(name)) {
                        if rule == false {
                            return Err(format!("{name} is not described"));
                        }
                        self.validate(rule, value)
                            .map_err(|it| format!("{name}: {it}"))?;
                    }
                    true
                }
                "allOf" => {
                    for schema in rule.as_array().unwrap() {
                        self.validate(schema, value)?;
                    }
                    true
                }
                "oneOf" => {
                    let schemas = rule.as_array().unwrap().iter();
                    let fitting = schemas.filter(|schema| self.validate(schema, value).is_ok());
                    fitting.count() == 1
                }
                _ => return Err(format!("unknown keyword {keyword}")),
            };
            if !fine {
                return Err(format!("not {keyword} {rule}"));
            }
        }
        Ok(())
    }
}

fn size(rule: &Value) -> Option<usize> {
    rule.as_u64().map(|size| size as usize)
}

fn is_key(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":_.-".contains(&b);
    (1..=1024).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether it is the tag of a revision.
fn is_tag(text: &str) -> bool {
    let number = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    number.is_some_and(|it| it.parse::<u64>().is_ok_and(|it| it > 0))
}

fn is_date_time(text: &str) -> bool {
    let shape = text.replace(|c: char| c.is_ascii_digit(), "0");
    shape == "0000-00-00T00:00:00Z"
}
