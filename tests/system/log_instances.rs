//! Several instances of one pipeline that read the logs of a MySQL table.

use std::path::PathBuf;

use crate::harness::mysql::LogTable;
use crate::harness::output::files;
use crate::harness::{Pseidon, Site, wait_until};
use crate::instances::held;
use crate::log_table::{FORMATS, Topics, check_topic, is_complete, template};

/// Two instances share the logs, while instances are killed, stopped and started: each record is
/// delivered once.
#[test]
fn instances_share_the_logs() {
    let site = Site::new("logs-two");
    let table = LogTable::new(&site);
    let mut topics = Topics::new(&site, 12);
    site.write("pipeline.edn", template(&site, &table, ""));
    topics
        .names
        .iter()
        .for_each(|name| table.set(name, FORMATS[0], "gzip"));
    topics.send_all(50);
    let mut one = site.run("pipeline.edn");
    let mut two = site.run("pipeline.edn");
    let assigned = |instance: &Pseidon| instance.log().contains("partitions assigned");
    wait_until("both have partitions", 60, || {
        assigned(&one) && assigned(&two)
    });
    for round in 0..3 {
        topics.send_all(50);
        std::thread::sleep(site.random.millis(200..2000));
        match round {
            0 => one.kill(),
            1 => two.stop(60),
            _ => one.kill(),
        }
        topics.send_all(50);
        std::thread::sleep(site.random.millis(200..2000));
        match round {
            1 => two = site.run("pipeline.edn"),
            _ => one = site.run("pipeline.edn"),
        }
    }
    for (name, sent) in topics.names.iter().zip(&topics.sent) {
        wait_until(&format!("{name} is read"), 120, || {
            is_complete(&site, name, *sent)
        });
    }
    one.stop(60);
    two.stop(60);
    topics
        .names
        .iter()
        .zip(&topics.sent)
        .for_each(|(name, sent)| check_topic(&site, name, *sent));
}

/// Two instances see a changed row at different times: one is frozen with lanes ahead before the
/// row changes, and killed after the other one has its partitions. The other one must first finish
/// that work with the row it was begun with.
#[test]
fn instances_see_a_changed_row_at_different_times() {
    let site = Site::new("logs-versions");
    let table = LogTable::new(&site);
    let mut topics = Topics::new(&site, 1);
    let name = topics.names[0].clone();
    let text = template(&site, &table, "");
    let full_files = text.replace(":records 2000 :idle \"500ms\"", ":records 20 :idle \"1h\"");
    assert_ne!(text, full_files);
    site.write("pipeline.edn", full_files);
    table.set(&name, FORMATS[0], "txt");
    topics.send_unevenly(0, 4);
    topics.flush();
    let mut one = site.run("pipeline.edn");
    let mut two = site.run("pipeline.edn");
    wait_until("both have half of the partitions", 60, || {
        held(&one.log()) == 2 && held(&two.log()) == 2
    });
    // Each instance has 70 records of one hour, which fill three files, and before them one of the
    // 18 records of the other hour, whose file stays open.
    topics.send_unevenly(0, 172);
    topics.flush();
    wait_until("all full files are visible", 60, || {
        is_complete(&site, &name, 120)
    });
    one.freeze();
    table.set(&name, FORMATS[1], "gzip");
    wait_until("the other instance finishes the work", 90, || {
        two.log()
            .contains("finishing that run with its own version")
    });
    one.kill();
    wait_until("the open files are visible", 60, || {
        is_complete(&site, &name, 176)
    });
    topics.send_unevenly(0, 224);
    topics.flush();
    wait_until("the changed row is in use", 60, || {
        let visible = files(&site.path("out").join(&name));
        let is_compressed = |file: &PathBuf| file.extension().is_some_and(|name| name == "gz");
        visible.iter().any(is_compressed)
    });
    two.stop(60);
    // Some partitions may not have been read to their ends.
    site.write("pipeline.edn", text);
    let mut rest = site.run("pipeline.edn");
    wait_until("everything is visible", 60, || {
        is_complete(&site, &name, 400)
    });
    rest.stop(60);
    check_topic(&site, &name, 400);
}
