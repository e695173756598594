//! `route`: a record goes to the first branch whose condition is true.

use std::fs;

use crate::harness::Site;
use crate::harness::output::{all_lines, hidden};

const RECORDS: &str = concat!(
    "{\"id\":1,\"status\":500}\n{\"id\":2,\"status\":404}\n{\"id\":3,\"status\":200}\n",
    "{\"id\":4}\n{\"id\":5,\"status\":null}\n{\"id\":6,\"status\":\"x\"}\n{\"id\":7,\"status\":503}\n",
);

fn ids(site: &Site, folder: &str) -> Vec<String> {
    let lines = all_lines(&site.path(folder));
    let id = |line: &String| line[6..7].to_owned();
    lines.iter().map(id).collect()
}

#[test]
fn the_first_condition_that_is_true_decides() {
    let site = Site::new("route-first");
    site.write("in.ndjson", RECORDS);
    site.write(
        "pipeline.edn",
        r#"{in (files "in.ndjson")
            pipeline (-> in (route "status >= 500" (files "out/failed")
                                   "status::int >= 400" (-> (set "refused = true") (files "out/refused"))
                                   :else (files "out/others")))}"#,
    );
    let log = site.finish("pipeline.edn", 60).log();
    assert_eq!(ids(&site, "out/failed"), ["1", "7"]);
    let refused = [r#"{"id":2,"status":404,"refused":true}"#];
    assert_eq!(all_lines(&site.path("out/refused")), refused);
    assert_eq!(ids(&site, "out/others"), ["3", "4", "5"]);
    // A record for which a condition fails is invalid, once.
    assert!(log.contains("quarantined=1"), "{log}");
}

#[test]
fn without_else_the_other_records_continue() {
    let site = Site::new("route-rest");
    site.write("in.ndjson", RECORDS);
    let flow = r#"(-> (files "in.ndjson") (route "status = '404'" (drop) "id > 5" (drop))
        (where "id <> 3") (stdout))"#;
    let output = site.pseidon().args(["run", "-e", flow]).output();
    let output = output.expect("the binary can be started");
    let log = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let ids: Vec<&str> = text.lines().map(|line| &line[6..7]).collect();
    assert_eq!(ids, ["1", "4", "5"], "{log}");
}

#[test]
fn killed_runs_deliver_each_record_to_one_branch_once() {
    let site = Site::new("route-kills");
    const RECORDS: u64 = 60_000;
    let record = |id: u64| format!("{{\"id\":{id},\"k\":{}}}", id * 7919 % 100);
    let records: Vec<String> = (0..RECORDS).map(|id| record(id) + "\n").collect();
    site.write("in.ndjson", records.concat());
    site.write(
        "pipeline.edn",
        r#"{:name "route" :settings {:commit-interval "20ms"}
            in (files "in.ndjson")
            pipeline (-> in (route "k < 1" (files {:path "out/few" :rollover {:records 5} :check-freq "10ms"})
                                   "k < 50" (files {:path "out/half" :rollover {:records 200} :check-freq "10ms"})
                                   :else (files {:path "out/rest" :rollover {:records 200} :check-freq "10ms"})))}"#,
    );
    for commits in [2, 3, 5] {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", format!("committed:{commits}"));
        site.start(command).expect_death("committed", 60);
    }
    site.finish("pipeline.edn", 60);
    let of = |wanted: std::ops::Range<u64>| {
        let ids = (0..RECORDS).filter(|id| wanted.contains(&(id * 7919 % 100)));
        let mut lines: Vec<String> = ids.map(record).collect();
        lines.sort();
        lines
    };
    for (folder, wanted) in [("few", 0..1), ("half", 1..50), ("rest", 50..100)] {
        let folder = site.path(&format!("out/{folder}"));
        assert!(all_lines(&folder) == of(wanted), "{}", folder.display());
        assert!(hidden(&folder).is_empty());
    }
    assert!(
        fs::read_dir(site.path("quarantine")).is_err(),
        "no record is invalid"
    );
}
