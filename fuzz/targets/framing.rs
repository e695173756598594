//! Framing: the ends of records do not depend on how their bytes arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::format;
use pseidon_plugin::framing::EndSearch;

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else {
        return;
    };
    for (name, settings) in [
        ("csv", ""),
        ("csv", "sep=semicolon"),
        ("csv", "quote=none"),
        ("csv", "quote=single;escape=backslash;comment=#"),
        ("json", ""),
        ("txt", ""),
    ] {
        let framing = format(name).framing(settings);
        let first = framing.first_end(bytes);
        let mut search = EndSearch::new(framing);
        let mut start = 0;
        let found = bytes.chunks(usize::from(*size).max(1)).find_map(|piece| {
            let end = search.find(piece).map(|end| start + end);
            start += piece.len();
            end
        });
        assert_eq!(found, first, "{name} {settings}");
        let mut start = 0;
        for end in framing.ends(bytes) {
            assert!(start <= end && end <= bytes.len());
            let _ = framing.record(&bytes[start..end.min(bytes.len())]);
            start = end + 1;
        }
        let _ = (
            framing.header(bytes),
            framing.last_end(bytes, 0),
            framing.completeness(bytes),
        );
    }
});
