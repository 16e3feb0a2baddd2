//! A tab of a real browser, driven as a user would: keys, clicks, and looking at what is there. Speaks the DevTools protocol through pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde_json::{Value, json};

use crate::page::Browser;
use crate::process::PATIENCE;

/// A tab. The browser ends when it is dropped.
pub struct Tab {
    browser: Browser,
    requests: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    number: u64,
    /// What the page has asked for: the URLs.
    pub asked_for: Vec<String>,
    /// What the browser has complained about: exceptions, errors in the console, violations of the page's policy.
    pub complaints: Vec<String>,
}

impl Tab {
    /// Opens a page in a browser of its own; `None` if there is no browser.
    pub fn open(url: &str) -> Option<Tab> {
        let (browser, requests, output) = Browser::drive()?;
        let (sender, messages) = unbounded();
        thread::spawn(move || read_messages(output, &sender));
        let mut tab = Tab {
            browser,
            requests,
            messages,
            session: String::new(),
            number: 0,
            asked_for: Vec::new(),
            complaints: Vec::new(),
        };
        let target = tab.call("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = tab.call("Target.attachToTarget", target);
        tab.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({}));
        }
        tab.resize(1200, 800);
        tab.call("Page.navigate", json!({"url": url}));
        tab.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'");
        Some(tab)
    }

    /// Sends a command and waits for its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        let result = self.try_call(method, parameters);
        result.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same; an error is the browser's.
    fn try_call(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let bytes = [message.to_string().as_bytes(), b"\0"].concat();
        self.requests.write_all(&bytes).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.messages.recv_deadline(deadline);
            let mut message =
                message.unwrap_or_else(|error| panic!("{method}: {error}: {}", self.browser.log()));
            if message["id"] == self.number {
                return match message["error"].take() {
                    Value::Null => Ok(message["result"].take()),
                    error => Err(error),
                };
            }
            self.note(&message);
        }
    }

    /// Looks at what the browser tells by itself.
    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                let url = parameters["request"]["url"].as_str().unwrap();
                self.asked_for.push(url.to_owned());
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters.to_string()),
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                self.complaints.push(parameters.to_string());
            }
            // Of the network are answers that are no success, which some tests want.
            Some("Log.entryAdded") if parameters["entry"]["source"] != "network" => {
                self.complaints.push(parameters.to_string());
            }
            _ => {}
        }
    }

    /// What an expression in the page comes to; of a promise, what that does.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let what = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut result = self.call("Runtime.evaluate", what);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {}",
            result["exceptionDetails"]
        );
        result["result"]["value"].take()
    }

    /// Loads the page again, and waits for it.
    pub fn reload(&mut self) {
        self.evaluate("void (window.isOld = true)");
        self.call("Page.reload", json!({}));
        self.wait_for("!window.isOld && document.readyState === 'complete'");
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn wait_for(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        // The page may go away while it looks, so each look is short.
        let look = format!(
            "new Promise(done => {{
                const until = performance.now() + 1000;
                const look = () => {{
                    let is = false;
                    try {{ is = Boolean({expression}); }} catch {{}}
                    if (is || performance.now() > until) done(is);
                    else setTimeout(look, 5);
                }};
                look();
            }})"
        );
        let what = json!({"expression": look, "awaitPromise": true, "returnByValue": true});
        loop {
            // An error says that the page has gone, and another one comes.
            let looked = self.try_call("Runtime.evaluate", what.clone());
            if looked.is_ok_and(|it| it["result"]["value"] == true) {
                return;
            }
            if Instant::now() > deadline {
                let page = self.evaluate("document.body.innerText");
                panic!("waited in vain for {expression} in {page}");
            }
        }
    }

    /// Waits until the text of an element contains this.
    #[track_caller]
    pub fn wait_for_text(&mut self, selector: &str, text: &str) {
        let text = Value::from(text);
        self.wait_for(&format!(
            "document.querySelector('{selector}').textContent.includes({text})"
        ));
    }

    /// The text of an element, or what has been typed into it.
    #[track_caller]
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.evaluate(&format!(
            "(it => it.value ?? it.textContent)(document.querySelector('{selector}'))"
        ));
        text.as_str().unwrap().to_owned()
    }

    /// Clicks on an element that can be seen.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        self.wait_for(&format!(
            "document.querySelector('{selector}')?.checkVisibility()"
        ));
        self.evaluate(&format!("document.querySelector('{selector}').click()"));
    }

    /// Types a text in place of what is in a field.
    #[track_caller]
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.wait_for(&format!(
            "document.querySelector('{selector}')?.checkVisibility()"
        ));
        self.evaluate(&format!(
            "(it => {{ it.focus(); it.select(); }})(document.querySelector('{selector}'))"
        ));
        self.write(text);
    }

    /// Types a text into what has the focus.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            " " => 32,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => panic!("{key:?}"),
        };
        let mut event = json!({"key": key, "code": key, "windowsVirtualKeyCode": code});
        event["type"] = "keyDown".into();
        match key {
            "Enter" => event["text"] = "\r".into(),
            " " => event["text"] = " ".into(),
            _ => {}
        }
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = "keyUp".into();
        event.as_object_mut().unwrap().remove("text");
        self.call("Input.dispatchKeyEvent", event);
    }

    pub fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Checks that nothing was asked for but what the server itself has, and that the browser had nothing to complain about.
    #[track_caller]
    pub fn expect_peace(&mut self, origin: &str) {
        self.evaluate("0"); // so that all that was told before is here
        assert_eq!(self.complaints, Vec::<String>::new());
        let inside = |url: &&String| url.starts_with(origin) || url.starts_with("data:");
        let outside: Vec<&String> = self.asked_for.iter().filter(|url| !inside(url)).collect();
        assert_eq!(outside, Vec::<&String>::new());
        assert!(!self.asked_for.is_empty());
    }
}

/// Messages end in a NUL.
fn read_messages(output: ChildStdout, messages: &Sender<Value>) {
    let mut output = BufReader::new(output);
    loop {
        let mut message = Vec::new();
        let read = output.read_until(b'\0', &mut message);
        if !read.is_ok_and(|_| message.pop() == Some(b'\0')) {
            return; // the browser has ended
        }
        if messages
            .send(serde_json::from_slice(&message).unwrap())
            .is_err()
        {
            return; // the test has
        }
    }
}
