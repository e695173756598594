//! Paths of local files: what people write who expect another file system, or a shell.

use pseidon_dsl::{Diagnostic, Span};

/// Checks that a path, or the beginning of one, is not a URL, and has nothing that only a shell
/// replaces. As a path, `s3://bucket/out` would be a folder `s3:` in the current one.
///
/// # Errors
/// What to write instead.
pub fn check_local_path(path: &str, span: Span) -> Result<(), Diagnostic> {
    if let Some((scheme, rest)) = url(path) {
        return Err(url_error(scheme, rest, span));
    }
    if let Some(rest) = path.strip_prefix('~') {
        let user = rest.split('/').next().unwrap_or_default();
        // `~` is also the end of the names of backups, and the whole name of some.
        let help = match user {
            "" => format!("write `${{env:HOME}}{rest}`"),
            _ => format!("write the path of the folder; for one named `{user}`, `./{path}`"),
        };
        let error = Diagnostic::new(span, "`~` is not replaced in a path", "not a folder");
        return Err(error.with_help(help));
    }
    for part in path.split('/') {
        if let Some(name) = variable(part) {
            let message = format!("`${name}` is not replaced in a path");
            let error = Diagnostic::new(span, message, "a variable of the shell");
            return Err(error.with_help(format!("write `${{env:{name}}}`")));
        }
    }
    if path.contains("${") {
        let error = Diagnostic::new(
            span,
            "`${…}` is not replaced in this path",
            "not a variable",
        );
        return Err(error.with_help("for a variable of the environment, write `${env:NAME}`"));
    }
    Ok(())
}

/// The scheme of a URL, and what follows `://`.
fn url(path: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = path.split_once("://")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(is_plain))
        .then_some((scheme, rest))
}

fn url_error(scheme: &str, rest: &str, span: Span) -> Diagnostic {
    let message = format!("`{scheme}://` is a URL, not a path");
    let error = Diagnostic::new(span, message, "expected the path of a local file or folder");
    error.with_help(match scheme {
        "file" => format!("write the path: `{}`", rest.trim_start_matches("localhost")),
        "http" | "https" => {
            "download the file first, or pipe it into the source `stdin`".to_owned()
        }
        "s3" | "s3a" | "s3n" | "gs" | "gcs" | "az" | "abfs" | "abfss" | "wasb" | "wasbs" => {
            "object stores are not supported: use a local folder, and copy its files with \
             another program"
                .to_owned()
        }
        _ => "other file systems are not supported: mount it and write the path, or use a local \
              folder and copy its files"
            .to_owned(),
    })
}

/// The name after `$` if a part of a path is a variable of a shell: `$HOME`.
fn variable(part: &str) -> Option<&str> {
    let name = part.strip_prefix('$')?;
    let is_plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    (is_name && name.chars().all(is_plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_what_a_shell_replaces_are_not_paths() {
        for (path, help) in [
            ("s3://bucket/out", "object stores are not supported"),
            ("hdfs://host/out", "other file systems"),
            ("file:///tmp/x", "write the path: `/tmp/x`"),
            ("https://host/x.json", "download the file"),
            ("~/out", "write `${env:HOME}/out`"),
            ("~", "write `${env:HOME}`"),
            ("~anna/out", "the path of the folder"),
            ("$HOME/out", "write `${env:HOME}`"),
            ("/data/$USER/out", "write `${env:USER}`"),
            ("${home}/out", "write `${env:NAME}`"),
        ] {
            let error = check_local_path(path, Span::default()).expect_err(path);
            let shown = error.help.unwrap_or_default();
            assert!(shown.contains(help), "{path}: {shown}");
        }
        for path in [
            "out",
            "/a/b",
            "./~x",
            "a~",
            "/d/$RECYCLE.BIN/x",
            "a:b/c",
            "a/b://c",
            "costs/$5",
            "",
        ] {
            assert_eq!(check_local_path(path, Span::default()), Ok(()), "{path}");
        }
    }
}
