//! The table of paths and methods of both APIs. 404, 405 and `Allow` follow from it.

use super::{json, operating, plain};
use crate::server::{Method, Operation};

/// An endpoint of one of the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Plain(plain::Endpoint),
    Json(json::Endpoint),
    Operating(operating::Endpoint),
}

impl Endpoint {
    /// What requests to it are counted as.
    pub(super) fn operation(self) -> Operation {
        Operation::new(match self {
            Endpoint::Operating(endpoint) => 1 + endpoint as usize,
            Endpoint::Plain(endpoint) => 8 + endpoint as usize,
            Endpoint::Json(endpoint) => 16 + endpoint as usize,
        })
    }

    /// The labels of metrics about it: which API, and which of its operations.
    fn labels(self) -> (&'static str, &'static str) {
        use json::Endpoint as J;
        use operating::Endpoint as O;
        use plain::Endpoint as P;
        match self {
            Endpoint::Operating(endpoint) => (
                "operating",
                match endpoint {
                    O::Live => "livez",
                    O::Ready => "readyz",
                    O::Metrics => "metrics",
                    O::Page => "page",
                },
            ),
            Endpoint::Plain(endpoint) => (
                "plain",
                match endpoint {
                    P::Get => "get",
                    P::Put => "put",
                    P::Delete => "delete",
                    P::Clear => "clear",
                },
            ),
            Endpoint::Json(endpoint) => (
                "json",
                match endpoint {
                    J::Get => "get",
                    J::Put => "put",
                    J::Delete => "delete",
                    J::Touch => "touch",
                    J::Ttl => "ttl",
                    J::List => "list",
                    J::DeletePrefix => "delete_prefix",
                    J::BulkPut => "bulk",
                    J::BulkGet => "bulk_get",
                    J::BulkDelete => "bulk_delete",
                    J::BulkTouch => "bulk_touch",
                    J::Export => "export",
                    J::Import => "import",
                    J::Watch => "watch",
                    J::Health => "health",
                    J::Status => "status",
                    J::OpenApi => "openapi",
                },
            ),
        }
    }
}

/// What requests are counted as, each with its labels. First what has no endpoint, or was refused before anybody looked for one.
pub(super) fn operations() -> Vec<(Operation, &'static str, &'static str)> {
    let endpoints = ROUTES.iter().flat_map(|route| route.endpoints);
    let operations = endpoints.map(|(_, endpoint)| {
        let (api, name) = endpoint.labels();
        (endpoint.operation(), api, name)
    });
    let none = (Operation::UNKNOWN, "none", "none");
    [none].into_iter().chain(operations).collect()
}

/// A path, and the endpoint of each of its methods. HEAD leads to the endpoint of GET.
struct Route {
    path: Path,
    endpoints: &'static [(Method, Endpoint)],
}

/// The form of a path.
enum Path {
    /// Exactly this text.
    Exact(&'static str),
    /// This text, then the key: the whole rest, `/` included.
    KeyIsRest(&'static str),
    /// A key without `/` between these texts.
    KeyBetween(&'static str, &'static str),
}

/// A path may fit two routes: `/api/v1/kv/bulk` is an endpoint and also the key `bulk`. The first route that has the method wins.
const ROUTES: &[Route] = {
    use Endpoint::{Json, Operating, Plain};
    use Method::{Delete, Get, Post, Put};
    use Path::{Exact, KeyBetween, KeyIsRest};
    use json::Endpoint as J;
    use operating::Endpoint as O;
    use plain::Endpoint as P;
    &[
        Route {
            path: KeyIsRest("/kv/"),
            endpoints: &[
                (Get, Plain(P::Get)),
                (Put, Plain(P::Put)),
                (Delete, Plain(P::Delete)),
            ],
        },
        Route {
            path: Exact("/clear"),
            endpoints: &[(Delete, Plain(P::Clear))],
        },
        Route {
            path: Exact("/api/v1/kv"),
            endpoints: &[(Get, Json(J::List)), (Delete, Json(J::DeletePrefix))],
        },
        Route {
            path: Exact("/api/v1/kv/bulk"),
            endpoints: &[(Post, Json(J::BulkPut))],
        },
        Route {
            path: KeyBetween("/api/v1/kv/", ""),
            endpoints: &[
                (Get, Json(J::Get)),
                (Put, Json(J::Put)),
                (Delete, Json(J::Delete)),
            ],
        },
        Route {
            path: Exact("/api/v1/kv/bulk/get"),
            endpoints: &[(Post, Json(J::BulkGet))],
        },
        Route {
            path: Exact("/api/v1/kv/bulk/delete"),
            endpoints: &[(Post, Json(J::BulkDelete))],
        },
        Route {
            path: Exact("/api/v1/kv/bulk/touch"),
            endpoints: &[(Post, Json(J::BulkTouch))],
        },
        Route {
            path: KeyBetween("/api/v1/kv/", "/touch"),
            endpoints: &[(Post, Json(J::Touch))],
        },
        Route {
            path: KeyBetween("/api/v1/kv/", "/ttl"),
            endpoints: &[(Get, Json(J::Ttl))],
        },
        Route {
            path: Exact("/api/v1/export"),
            endpoints: &[(Get, Json(J::Export))],
        },
        Route {
            path: Exact("/api/v1/import"),
            endpoints: &[(Post, Json(J::Import))],
        },
        Route {
            path: Exact("/api/v1/watch"),
            endpoints: &[(Get, Json(J::Watch))],
        },
        Route {
            path: Exact("/api/v1/health"),
            endpoints: &[(Get, Json(J::Health))],
        },
        Route {
            path: Exact("/api/v1/status"),
            endpoints: &[(Get, Json(J::Status))],
        },
        Route {
            path: Exact("/api/v1/openapi.json"),
            endpoints: &[(Get, Json(J::OpenApi))],
        },
        Route {
            path: Exact("/livez"),
            endpoints: &[(Get, Operating(O::Live))],
        },
        Route {
            path: Exact("/readyz"),
            endpoints: &[(Get, Operating(O::Ready))],
        },
        Route {
            path: Exact("/metrics"),
            endpoints: &[(Get, Operating(O::Metrics))],
        },
        Route {
            path: Exact("/"),
            endpoints: &[(Get, Operating(O::Page))],
        },
    ]
};

/// Why a request has no endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// The path is unknown.
    Path,
    /// The path does not have the method. The text lists those it has, for the `Allow` header.
    Method(String),
}

/// Finds the endpoint of a request. Also returns the key in its path, still percent-encoded; empty if the path has none.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<(Endpoint, &'a str), Miss> {
    find_in(ROUTES, method, path)
}

fn find_in<'a>(
    routes: &[Route],
    method: &Method,
    path: &'a str,
) -> Result<(Endpoint, &'a str), Miss> {
    let method = match method {
        Method::Head => &Method::Get,
        method => method,
    };
    let mut allowed = Vec::new();
    for route in routes {
        let Some(key) = route.path.key_in(path) else {
            continue;
        };
        for (has, endpoint) in route.endpoints {
            if has == method {
                return Ok((*endpoint, key));
            }
            if allowed.contains(&has.as_str()) {
                continue; // by another route
            }
            allowed.push(has.as_str());
            if *has == Method::Get {
                allowed.push(Method::Head.as_str());
            }
        }
    }
    if allowed.is_empty() {
        Err(Miss::Path)
    } else {
        Err(Miss::Method(allowed.join(", ")))
    }
}

/// Whether a path belongs to the JSON API. Errors of such paths are answered in JSON.
pub(super) fn is_json(path: &str) -> bool {
    path.strip_prefix("/api/v1")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Path {
    /// Returns the key in a path of this form, empty if the form has none; `None` if the path has another form.
    fn key_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self {
            Path::Exact(exact) => (path == *exact).then_some(""),
            Path::KeyIsRest(before) => path.strip_prefix(before),
            Path::KeyBetween(before, after) => {
                let key = path.strip_prefix(before)?.strip_suffix(after)?;
                (!key.contains('/')).then_some(key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Endpoint::{Json, Operating, Plain};
    use json::Endpoint as J;
    use operating::Endpoint as O;
    use plain::Endpoint as P;

    #[test]
    fn a_path_and_a_method_lead_to_an_endpoint() {
        for (method, path, endpoint, key) in [
            (Method::Get, "/kv/a", Plain(P::Get), "a"),
            (Method::Head, "/kv/a", Plain(P::Get), "a"),
            (Method::Put, "/kv/", Plain(P::Put), ""),
            (Method::Delete, "/kv/a/b%20c", Plain(P::Delete), "a/b%20c"),
            (Method::Get, "/", Operating(O::Page), ""),
            (Method::Delete, "/clear", Plain(P::Clear), ""),
            (Method::Get, "/api/v1/kv", Json(J::List), ""),
            (Method::Delete, "/api/v1/kv", Json(J::DeletePrefix), ""),
            (Method::Put, "/api/v1/kv/a", Json(J::Put), "a"),
            (Method::Head, "/api/v1/kv/", Json(J::Get), ""),
            (Method::Post, "/api/v1/kv/a/touch", Json(J::Touch), "a"),
            (Method::Post, "/api/v1/kv//touch", Json(J::Touch), ""),
            (Method::Get, "/api/v1/kv/a/ttl", Json(J::Ttl), "a"),
            // A key named bulk.
            (Method::Post, "/api/v1/kv/bulk", Json(J::BulkPut), ""),
            (Method::Get, "/api/v1/kv/bulk", Json(J::Get), "bulk"),
            (Method::Delete, "/api/v1/kv/bulk", Json(J::Delete), "bulk"),
            (
                Method::Post,
                "/api/v1/kv/bulk/touch",
                Json(J::BulkTouch),
                "",
            ),
            (Method::Get, "/api/v1/kv/bulk/ttl", Json(J::Ttl), "bulk"),
        ] {
            assert_eq!(find(&method, path), Ok((endpoint, key)), "{method} {path}");
        }
    }

    #[test]
    fn each_endpoint_is_counted_by_itself() {
        let operations = operations();
        for (at, one) in operations.iter().enumerate() {
            for other in &operations[..at] {
                assert_ne!(one.0, other.0);
                assert_ne!((one.1, one.2), (other.1, other.2));
            }
        }
    }

    #[test]
    fn other_paths_have_no_route() {
        for path in [
            "",
            "*",
            "/kv",
            "/KV/a",
            "/clear/",
            "/clea",
            "//kv/a",
            "/kvs/a",
            "/api",
            "/api/v1",
            "/api/v1/kv/a/b",
            "/api/v1/kv/a/ttl/",
            "/api/v1/kv/a/b/ttl",
            "/api/v2/kv/a",
        ] {
            assert_eq!(find(&Method::Get, path), Err(Miss::Path), "{path}");
        }
    }

    #[test]
    fn allow_lists_what_the_path_has() {
        let allow = |path| match find(&Method::Patch, path) {
            Err(Miss::Method(allow)) => allow,
            other => panic!("{other:?}"),
        };
        assert_eq!(allow("/kv/a"), "GET, HEAD, PUT, DELETE");
        assert_eq!(allow("/clear"), "DELETE");
        assert_eq!(allow("/api/v1/kv/bulk"), "POST, GET, HEAD, PUT, DELETE");
        assert_eq!(allow("/api/v1/kv/bulk/touch"), "POST");
    }

    #[test]
    fn allow_lists_what_two_routes_have_once() {
        let endpoints = &[(Method::Get, Plain(P::Get)), (Method::Put, Plain(P::Put))];
        let path = |path| Route { path, endpoints };
        let routes = [path(Path::Exact("/kv/a")), path(Path::KeyIsRest("/kv/"))];
        let miss = find_in(&routes, &Method::Patch, "/kv/a");
        assert_eq!(miss, Err(Miss::Method("GET, HEAD, PUT".into())));
    }

    #[test]
    fn the_json_api_is_all_that_is_under_its_path() {
        for (path, json) in [
            ("/api/v1", true),
            ("/api/v1/x", true),
            ("/api/v10", false),
            ("/api", false),
            ("/kv/api/v1", false),
        ] {
            assert_eq!(is_json(path), json, "{path}");
        }
    }
}
