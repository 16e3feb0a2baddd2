//! The table of paths and methods, from which 404s, 405s and `Allow` follow.

use crate::server::Method;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `GET /kv/{key}`
    Get,
    /// `PUT /kv/{key}`
    Put,
    /// `DELETE /kv/{key}`
    Delete,
    /// `DELETE /clear`
    Clear,
}

/// A path, and what its methods ask for. HEAD goes wherever GET goes.
pub(super) struct Route {
    /// `{key}` at the end stands for the rest of the path, whatever it is.
    path: &'static str,
    endpoints: &'static [(Method, Endpoint)],
}

const ROUTES: &[Route] = &[
    Route {
        path: "/kv/{key}",
        endpoints: &[
            (Method::Get, Endpoint::Get),
            (Method::Put, Endpoint::Put),
            (Method::Delete, Endpoint::Delete),
        ],
    },
    Route {
        path: "/clear",
        endpoints: &[(Method::Delete, Endpoint::Clear)],
    },
];

/// The route that a path belongs to, and the key in it, still percent-encoded; empty where the route has none.
pub(super) fn find(path: &str) -> Option<(&'static Route, &str)> {
    ROUTES
        .iter()
        .find_map(|route| Some((route, route.key_in(path)?)))
}

impl Route {
    fn key_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.strip_suffix("{key}") {
            Some(prefix) => path.strip_prefix(prefix),
            None => (path == self.path).then_some(""),
        }
    }

    /// What the method asks for, if the path has it.
    pub(super) fn endpoint(&self, method: &Method) -> Option<Endpoint> {
        let method = if *method == Method::Head {
            &Method::Get
        } else {
            method
        };
        self.endpoints
            .iter()
            .find(|(allowed, _)| allowed == method)
            .map(|(_, endpoint)| *endpoint)
    }

    /// The methods that the path has, as the `Allow` header lists them.
    pub(super) fn allow(&self) -> String {
        let mut methods: Vec<&str> = self
            .endpoints
            .iter()
            .map(|(method, _)| method.as_str())
            .collect();
        if self.endpoint(&Method::Head).is_some() {
            methods.push(Method::Head.as_str());
        }
        methods.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(method: Method, path: &str) -> Option<(Endpoint, &str)> {
        let (route, key) = find(path)?;
        Some((route.endpoint(&method)?, key))
    }

    #[test]
    fn a_path_and_a_method_lead_to_an_endpoint() {
        assert_eq!(endpoint(Method::Get, "/kv/a"), Some((Endpoint::Get, "a")));
        assert_eq!(endpoint(Method::Head, "/kv/a"), Some((Endpoint::Get, "a")));
        assert_eq!(endpoint(Method::Put, "/kv/"), Some((Endpoint::Put, "")));
        assert_eq!(
            endpoint(Method::Delete, "/kv/a/b%20c"),
            Some((Endpoint::Delete, "a/b%20c"))
        );
        assert_eq!(
            endpoint(Method::Delete, "/clear"),
            Some((Endpoint::Clear, ""))
        );
        assert_eq!(endpoint(Method::Head, "/clear"), None);
        assert_eq!(endpoint(Method::Post, "/kv/a"), None);
    }

    #[test]
    fn other_paths_have_no_route() {
        for path in [
            "/", "", "*", "/kv", "/KV/a", "/clear/", "/clea", "//kv/a", "/kvs/a",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn allow_lists_what_the_path_has() {
        assert_eq!(find("/kv/a").unwrap().0.allow(), "GET, PUT, DELETE, HEAD");
        assert_eq!(find("/clear").unwrap().0.allow(), "DELETE");
    }
}
