//! Options as environment variables: `THREADKV_PORT` for `--port`, and so on for each option there is.
//!
//! A variable becomes an argument in front of those of the command line, unless the command line has that option itself. So there is one
//! parser, and a new option is a variable as well.

use std::ffi::OsString;

use argh::{ArgsInfo, FlagInfo, FlagInfoKind, Optionality};

use super::args::Args;

/// What the variables of this program begin with.
const PREFIX: &str = "THREADKV_";

/// Each of these options says the opposite of the other, so the one on the command line also wins over the other's variable.
const OPPOSITES: [&str; 2] = ["--auth", "--no-auth"];

/// What the environment asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    /// The same as arguments.
    pub(super) arguments: Vec<String>,
    /// Variables without effect: a line of the log each.
    pub(super) warnings: Vec<String>,
    pub(super) variables: Variables,
}

/// The options that the environment has set, and the variables that did it.
#[derive(Clone, Debug, Default)]
pub struct Variables(Vec<(String, String)>);

impl Variables {
    /// Puts the names of variables in the place of options, for who reads the message has set a variable and no option.
    pub fn named_in(&self, message: &str) -> String {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let mut named = String::new();
        let mut rest = message;
        while let Some(at) = rest.find("--") {
            let (before, option) = rest.split_at(at);
            let end = option.find(|c| !is_name(c)).unwrap_or(option.len());
            let (option, after) = option.split_at(end);
            let variable = self.0.iter().find(|(name, _)| name == option);
            named += before;
            named += variable.map_or(option, |(_, variable)| variable);
            rest = after;
        }
        named + rest
    }
}

/// Reads the variables that are meant for this program, beside what the command line says. An empty one counts as not set.
pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    command_line: &[&str],
) -> Result<Environment, String> {
    let ours = |(name, value): (OsString, OsString)| {
        let name = name.into_string().ok()?;
        let set = name.starts_with(PREFIX) && !value.is_empty();
        set.then_some((name, value))
    };
    let mut variables: Vec<_> = variables.into_iter().filter_map(ours).collect();
    variables.sort(); // so that messages do not depend on the order in which a shell passes them
    let info = Args::get_args_info();
    let mut environment = Environment::default();
    let mut of_kubernetes = 0;
    for (name, value) in variables {
        let value = value
            .into_string()
            .map_err(|value| format!("{name}={value:?}: expected a value in UTF-8"))?;
        if is_of_kubernetes(&name, &value) {
            of_kubernetes += 1;
        } else if let Some(flag) = info.flags.iter().find(|flag| variable(flag) == name) {
            if !is_given(flag, command_line) {
                environment.set(flag, name, &value)?;
            }
        } else {
            let warning = format!("{name} has no effect: no option is called so");
            environment.warnings.push(warning);
        }
    }
    if of_kubernetes > 0 {
        environment.warnings.push(format!(
            "{of_kubernetes} variables such as {PREFIX}PORT and {PREFIX}SERVICE_HOST have no effect: \
             they describe a Kubernetes service (enableServiceLinks: false keeps them away)"
        ));
    }
    Ok(environment)
}

impl Environment {
    fn set(&mut self, flag: &FlagInfo<'_>, name: String, value: &str) -> Result<(), String> {
        match flag.kind {
            FlagInfoKind::Switch => {
                if is_on(&name, value)? {
                    self.arguments.push(flag.long.into());
                }
            }
            FlagInfoKind::Option { .. } if flag.optionality == Optionality::Repeating => {
                let items = value.split(',').map(str::trim);
                for item in items.filter(|item| !item.is_empty()) {
                    self.arguments.extend([flag.long.into(), item.into()]);
                }
            }
            FlagInfoKind::Option { .. } => {
                self.arguments.extend([flag.long.into(), value.into()]);
            }
        }
        self.variables.0.push((flag.long.into(), name));
        Ok(())
    }
}

/// The variable of an option; empty if it has none, since it is no setting of a server.
fn variable(flag: &FlagInfo<'_>) -> String {
    match flag.long {
        "--help" | "--version" => String::new(),
        long => format!(
            "{PREFIX}{}",
            long[2..].to_ascii_uppercase().replace('-', "_")
        ),
    }
}

fn is_given(flag: &FlagInfo<'_>, command_line: &[&str]) -> bool {
    let short = flag.short.map(|short| format!("-{short}"));
    command_line.iter().any(|argument| {
        *argument == flag.long
            || short.as_deref() == Some(argument)
            || OPPOSITES.contains(argument) && OPPOSITES.contains(&flag.long)
    })
}

fn is_on(name: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("{name} {value:?}: expected 1, true, 0 or false")),
    }
}

/// Kubernetes tells each container about the services beside it, as Docker once did about links. Those about a service called `threadkv`
/// look like ours.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let address = value.starts_with("tcp://") || value.starts_with("udp://");
    rest == "PORT" && address || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(
        variables: &[(&str, &str)],
        command_line: &[&str],
    ) -> Result<Environment, String> {
        let variables = variables.iter().map(|(a, b)| (a.into(), b.into()));
        read(variables, command_line)
    }

    #[test]
    fn variables_become_arguments() {
        let read = environment(
            &[
                ("THREADKV_PORT", "8001"),
                ("THREADKV_WORKING_DIR", "a b,c"),
                ("THREADKV_CORS_ORIGIN", "http://a, http://b,"),
                ("THREADKV_NO_AUTH", "True"),
                ("PORT", "1"),
            ],
            &[],
        );
        let read = read.unwrap();
        let expected = [
            "--cors-origin",
            "http://a",
            "--cors-origin",
            "http://b",
            "--no-auth",
            "--port",
            "8001",
            "--working-dir",
            "a b,c",
        ];
        assert_eq!(read.arguments, expected);
        assert!(read.warnings.is_empty());
    }

    #[test]
    fn the_command_line_wins_and_empty_is_unset() {
        for (name, value, command_line) in [
            ("THREADKV_PORT", "8001", &["--port", "1"][..]),
            ("THREADKV_PORT", "8001", &["-p", "1"]),
            ("THREADKV_PORT", "", &[]),
            ("THREADKV_ALLOW_HOST", "a,b", &["--allow-host", "c"]),
            ("THREADKV_ALLOW_HOST", " , ", &[]),
            ("THREADKV_NO_AUTH", "0", &[]),
            ("THREADKV_NO_AUTH", "1", &["--auth", "f"]),
            ("THREADKV_AUTH", "f", &["--no-auth"]),
        ] {
            let read = environment(&[(name, value)], command_line).unwrap();
            assert!(read.arguments.is_empty(), "{name}={value}: {read:?}");
            assert!(read.warnings.is_empty());
        }
    }

    #[test]
    fn unknown_ones_are_warned_of() {
        for unknown in ["THREADKV_PROT", "THREADKV_VERSION", "THREADKV_"] {
            let read = environment(&[(unknown, "1")], &[]).unwrap();
            assert!(read.arguments.is_empty());
            assert!(
                read.warnings[0].starts_with(&format!("{unknown} has no effect")),
                "{read:?}"
            );
        }
    }

    #[test]
    fn a_kubernetes_service_of_that_name_sets_no_option() {
        let read = environment(
            &[
                ("THREADKV_PORT", "tcp://10.0.0.1:4000"),
                ("THREADKV_PORT_4000_TCP", "tcp://10.0.0.1:4000"),
                ("THREADKV_PORT_4000_TCP_PORT", "4000"),
                ("THREADKV_SERVICE_HOST", "10.0.0.1"),
            ],
            &[],
        );
        let read = read.unwrap();
        assert!(read.arguments.is_empty());
        assert_eq!(read.warnings.len(), 1);
        assert!(read.warnings[0].starts_with("4 variables"));
    }

    #[test]
    fn messages_name_the_variable_and_leave_other_options_alone() {
        let read = environment(&[("THREADKV_AUTH", "f"), ("THREADKV_PORT", "x")], &[]);
        let variables = read.unwrap().variables;
        for (message, named) in [
            ("--port \"x\": no", "THREADKV_PORT \"x\": no"),
            ("--auth beside --no-auth", "THREADKV_AUTH beside --no-auth"),
            ("or --host, or --port", "or --host, or THREADKV_PORT"),
            ("--ports and -- and", "--ports and -- and"),
        ] {
            assert_eq!(variables.named_in(message), named);
        }
    }
}
