//! The options that say how patient the server is.

use crate::options::expect_mistake;
use crate::process::Server;

#[test]
fn mistakes_in_how_patient_to_be_are_answered_by_one_line_and_status_1() {
    for option in ["--idle-timeout", "--head-timeout", "--transfer-timeout"] {
        for value in ["0", "86401", "-1", "1s", "1.5", "", "99999999999999999999"] {
            expect_mistake(
                &[&format!("{option}={value}")],
                &format!("{option} {value:?}"),
            );
            expect_mistake(&[option, "bogus"], &format!("{option} \"bogus\""));
        }
        expect_mistake(&[option], option);
    }
    for value in ["-1", "1073741825", "1K", "fast", ""] {
        expect_mistake(
            &[&format!("--min-rate={value}")],
            &format!("--min-rate {value:?}"),
        );
    }
}

#[test]
fn the_server_can_be_as_patient_as_one_likes() {
    for (seconds, rate) in [("1", "1073741824"), ("86400", "0"), ("60", "1")] {
        for separate in [true, false] {
            let options = [
                ("--idle-timeout", seconds),
                ("--head-timeout", seconds),
                ("--transfer-timeout", seconds),
                ("--min-rate", rate),
            ];
            let options: Vec<String> = if separate {
                options
                    .iter()
                    .flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()])
                    .collect()
            } else {
                options
                    .iter()
                    .map(|(option, value)| format!("{option}={value}"))
                    .collect()
            };
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let server = Server::start(&options);
            server.put("/kv/a", "v".repeat(100_000)).expect(200, "");
            server.get("/kv/a").expect(200, &"v".repeat(100_000));
        }
    }
}
