//! A file of tokens for one test, managed as a user does it.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::directory::Directory;

pub struct TokenFile(PathBuf);

impl TokenFile {
    pub fn in_directory(directory: &Directory) -> TokenFile {
        TokenFile(directory.path().join("tokens"))
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Makes a token and returns it.
    pub fn create(&self, options: &[&str]) -> String {
        let output = self.run("create", options);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let printed = String::from_utf8(output.stdout).unwrap();
        let token = printed.strip_suffix('\n').unwrap();
        assert!(!token.is_empty() && !token.contains(char::is_whitespace));
        token.to_owned()
    }

    /// Runs `threadkv token` with a command and its options.
    pub fn run(&self, command: &str, options: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_threadkv"))
            .args(["token", command, "--file", self.path()])
            .args(options)
            .output()
            .unwrap()
    }
}
