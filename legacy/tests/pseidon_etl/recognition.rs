//! Which texts are legacy files.

use pseidon_legacy::pseidon_etl::is_config;

#[test]
fn legacy_files_are_distinguished_from_pipeline_files() {
    for (text, expected) in [
        ("{:etl-db-host \"//h/d\"}", true),
        ("{:kafka-brokers 0x :writer 5}", true),
        ("{:writer {} pipeline (-> disk-writer)}", true),
        ("{a some.Plugin pipeline (-> a)}", true),
        ("{a stdout pipeline (-> a disk-writer)}", true),
        ("{a stdin b stdout pipeline (-> a b)}", false),
        ("{a (kafka {}) pipeline (-> a disk-writer)}", false),
        ("{:name \"x\" a some.Plugin pipeline (-> a)}", false),
        ("{:name \"x\" :data-dir \"/d\"}", false),
        ("{:etl-threads 5 a (stdin) pipeline (-> a (stdout))}", false),
        ("{}", false),
        ("(-> disk-writer)", false),
        ("", false),
        ("name = \"x\"", false),
    ] {
        assert_eq!(is_config(text), expected, "{text}");
    }
}
