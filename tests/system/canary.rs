//! Secrets: a value of `${env:NAME}` in each option of each plugin, and in each setting, is in
//! nothing that is printed or kept, at every log level.
//!
//! [`options`] lists the options as the binary declares them, each with values that have the
//! secret. A pipeline with one of them is checked, and is run for a short time if it is valid.
//! Servers do not exist: the errors are what is searched. Not searched are the records of an
//! output, and the names of files and of lanes, which are what the option sets.

mod options;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use self::options::Scene;
use crate::harness::servers::{free_port, get};
use crate::harness::{BUSY, Site, wait_until};

/// The secrets. The second has characters that are escaped in strings and URLs.
const CANARY: &str = "Canary7Secret9";
const ODD_CANARY: &str = "Odd c+n/ry \"7\" %é?";
/// It is shorter than what is replaced anywhere. Errors of the file do not show it either.
const SHORT_CANARY: &str = "Qz7x";

/// How long a pipeline is run that does not end by itself.
const RUN_TIME: Duration = Duration::from_millis(1200);
/// How many pipelines run at the same time: most wait for servers.
const AT_ONCE: usize = 6;

const RECORDS: &str = r#"{"n":1,"status":200,"agent":"x","user":{"id":1,"email":"e"},"url":"u","type":"t","password":"p","usr":"u","mail":"m","line":"1.2.3.4 /x","items":["a"],"user_id":1,"country":"de","size":1,"id":1}
{"n":"x","status":404,"agent":"y","user":{"id":2},"url":"v","items":["b"],"country":"fr","id":2}
"#;

#[test]
fn no_option_prints_a_secret() {
    let site = Site::new("canary");
    let scenes = options::scenes(&printed(&site, &["plugins", "--json-schema"]), |name| {
        printed(&site, &["plugins", name])
    });
    assert!(scenes.len() > 300, "{} scenes", scenes.len());
    let queue = Mutex::new(scenes.into_iter().enumerate());
    let (leaks, searched) = (Mutex::new(Vec::new()), SearchCounts::default());
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic").next();
                    let Some((number, scene)) = next else {
                        return;
                    };
                    let found = Trial::new(&site, number, &scene).leaks(&searched);
                    leaks.lock().expect("no panic").extend(found);
                }
            });
        }
    });
    let [runs, pages] = [&searched.runs, &searched.pages].map(|of| of.load(Ordering::Relaxed));
    assert!(runs > 150 && pages > 50, "{runs} runs, {pages} with pages");
    let mut leaks = leaks.into_inner().expect("no panic");
    leaks.sort();
    assert!(
        leaks.is_empty(),
        "{} leaks:\n{}",
        leaks.len(),
        leaks.join("\n")
    );
}

/// A value that is also a word of a page is replaced in texts, and in nothing that a program reads.
#[test]
fn words_of_the_program_stay() {
    let site = Site::new("canary-words");
    let port = free_port();
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:settings {{:monitor-port {port}}}
                in (generate {{:record {{:n "n"}} :rate 100}})
                pipeline (-> in (where "'${{env:A}}' <> '${{env:B}}'") (drop))}}"#
        ),
    );
    let mut command = site.command("pipeline.edn");
    command
        .args(["--log-format", "json"])
        .env("A", "running")
        .env("B", "timestamp");
    let mut run = site.start(command);
    let page = || -> Option<serde_json::Value> {
        let (_, page) = get(port, "/logs")?;
        serde_json::from_str(&page).ok()
    };
    wait_until("it runs", 30, || {
        page().is_some_and(|page| page[0]["state"] == "running")
    });
    run.stop(30);
    for line in run.log().lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(event["timestamp"].is_string(), "{line}");
    }
}

/// What there was to be searched.
#[derive(Default)]
struct SearchCounts {
    /// Pipelines that were run.
    runs: AtomicUsize,
    /// Those whose pages were read.
    pages: AtomicUsize,
}

/// What a command prints.
fn printed(site: &Site, args: &[&str]) -> String {
    let output = site.pseidon().args(args).output().expect("it starts");
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// One pipeline in a folder of its own.
struct Trial<'s> {
    site: &'s Site,
    scene: &'s Scene,
    folder: String,
    port: u16,
    repl_port: u16,
    json: bool,
}

impl<'s> Trial<'s> {
    fn new(site: &'s Site, number: usize, scene: &'s Scene) -> Trial<'s> {
        let folder = format!("{number:04}");
        let (port, repl_port) = (free_port(), free_port());
        site.write(&format!("{folder}/in/a.json"), RECORDS);
        site.write(
            &format!("{folder}/countries.csv"),
            "code,name,region\nde,Germany,EU\n",
        );
        let service = format!(":monitor-port {port} :repl-port {repl_port}");
        let text = scene.text.replace("SERVICE", &service);
        site.write(&format!("{folder}/pipeline.edn"), text);
        Trial {
            site,
            scene,
            folder,
            port,
            repl_port,
            json: number.is_multiple_of(3),
        }
    }

    /// Where a secret was found, each with the line.
    fn leaks(&self, searched: &SearchCounts) -> Vec<String> {
        let mut found = Vec::new();
        let check = self.start(&["check"], "check");
        let is_valid = check.wait_with_output().expect("it ends").status.success();
        if is_valid {
            let mut run = self.start(&["run", "--log", "trace"], "run");
            let pages = self.observe(&mut run);
            searched.runs.fetch_add(1, Ordering::Relaxed);
            searched
                .pages
                .fetch_add(usize::from(!pages.is_empty()), Ordering::Relaxed);
            let _ = run.kill();
            run.wait().expect("it ends");
            self.search("a page", pages.as_bytes(), &forms(), &mut found);
        }
        let mut forms = forms();
        if !is_valid {
            forms.push(SHORT_CANARY.to_owned());
        }
        self.search_folder(&self.site.path(&self.folder), &forms, &mut found);
        found
    }

    fn start(&self, args: &[&str], name: &str) -> Child {
        let file = |stream: &str| {
            let path = format!("{}/{name}.{stream}", self.folder);
            fs::File::create(self.site.path(&path)).expect("a file")
        };
        let format = if self.json { "json" } else { "text" };
        let mut command: Command = self.site.pseidon();
        command
            .args(["--log-format", format])
            .args(args)
            .arg("pipeline.edn")
            .current_dir(self.site.path(&self.folder))
            .env("CANARY", CANARY)
            .env("ODD_CANARY", ODD_CANARY)
            .env("SHORT_CANARY", SHORT_CANARY)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        command.spawn().expect("it starts")
    }

    /// The pages and replies of a run, until it ends or has run long enough.
    fn observe(&self, run: &mut Child) -> String {
        let began = Instant::now();
        let mut pages = String::new();
        let mut is_ready = false;
        while run.try_wait().expect("a child").is_none() {
            let is_over = began.elapsed() > RUN_TIME * if is_ready { 1 } else { BUSY };
            is_ready |= get(self.port, "/live").is_some();
            if is_ready {
                pages.clear();
                for path in [
                    "/health",
                    "/logs",
                    "/metrics",
                    "/metrics/prometheus",
                    "/stats",
                    "/config",
                ] {
                    pages.extend(get(self.port, path).map(|(_, page)| page));
                }
                let commands = ["stages", "errors", "logs", "files"];
                pages.push_str(&replies(self.repl_port, &commands));
            }
            if is_over {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        pages
    }

    fn search_folder(&self, folder: &Path, forms: &[String], found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                self.search_folder(&path, forms, found);
            } else if path.is_file() {
                let below = path
                    .strip_prefix(self.site.path(&self.folder))
                    .expect("it is there");
                let below = below.to_string_lossy();
                let is_output = below.starts_with("out") && !below.contains("quarantine");
                if !is_output {
                    let bytes = fs::read(&path).unwrap_or_default();
                    self.search(&name, &bytes, forms, found);
                }
            }
        }
    }

    /// Searches for the forms in any case.
    fn search(&self, place: &str, bytes: &[u8], forms: &[String], found: &mut Vec<String>) {
        let text = String::from_utf8_lossy(bytes);
        let lower = text.to_ascii_lowercase();
        let at = forms
            .iter()
            .find_map(|form| lower.find(&form.to_ascii_lowercase()));
        if let Some(at) = at {
            let start = text.floor_char_boundary(at.saturating_sub(120));
            let end = text.ceil_char_boundary((at + 60).min(text.len()));
            let around = text[start..end].replace('\n', "⏎");
            let (option, folder) = (&self.scene.option, &self.folder);
            found.push(format!("{option} ({folder}): {place}: {around}"));
        }
    }
}

/// How the secrets can be written that are replaced anywhere.
fn forms() -> Vec<String> {
    let mut forms = Vec::new();
    for value in [CANARY, ODD_CANARY] {
        forms.push(value.to_owned());
        forms.push(format!("{value:?}").trim_matches('"').to_owned());
        let encoded = |byte: u8| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        };
        forms.push(value.bytes().map(encoded).collect());
        // In Base64, a value begins at each third byte in its own way; its ends depend on what is
        // beside it.
        for before in ["", "a", "ab"] {
            let encoded = STANDARD.encode(format!("{before}{value}"));
            forms.push(encoded[4..encoded.len() - 4].to_owned());
        }
    }
    forms
}

/// What the REPL answers to some commands.
fn replies(port: u16, commands: &[&str]) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return String::new();
    };
    let limit = Some(Duration::from_secs(5));
    if stream.set_read_timeout(limit).is_err() {
        return String::new();
    }
    for command in commands {
        let _ = writeln!(stream, "{command}");
    }
    let _ = writeln!(stream, "quit");
    BufReader::new(stream)
        .lines()
        .map_while(Result::ok)
        .map(|line| line + "\n")
        .collect()
}
