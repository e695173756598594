//! The tokens of the service, and what each of them allows.
//!
//! `:token` is one token, which allows everything. `:token-file` names a file with a token per line
//! and the roles that it has: `NAME ROLES TOKEN`.

use std::path::Path;
use std::sync::Arc;

use pseidon_delivery::Reason;
use pseidon_plugin::Secret;
use subtle::ConstantTimeEq;

use crate::credentials::CredentialFile;

/// The length of a token that cannot be guessed.
const MIN_TOKEN: usize = 16;

/// What a token allows. None of them includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// To read the pages, and to execute the commands of the REPL that only show something.
    Read,
    /// To control what runs.
    Operate,
    /// To see values of records.
    Records,
}

impl Role {
    const ALL: [Role; 3] = [Role::Read, Role::Operate, Role::Records];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
            Role::Records => "records",
        }
    }

    fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// The error for a caller whose token is right but has not this role.
pub(crate) fn missing_role(role: Role) -> String {
    format!("the token does not have the role `{}`", role.as_str())
}

/// Who a caller is, and what the caller may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The name of the token in the file of tokens, if it is in one.
    pub(crate) name: Option<String>,
    roles: Vec<Role>,
}

impl Grant {
    /// Allows everything.
    pub(crate) fn all() -> Grant {
        Grant {
            name: None,
            roles: Role::ALL.to_vec(),
        }
    }

    pub(crate) fn allows(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// All tokens of the service.
pub(crate) struct Tokens(Vec<Token>);

struct Token {
    secret: Secret,
    grant: Arc<Grant>,
}

impl Tokens {
    /// One token that allows everything. Checks that it is not blank.
    pub(crate) fn one(token: &Secret) -> Result<Tokens, Reason> {
        if token.expose().trim().is_empty() {
            return Err("invalid `:token`: the token is empty".into());
        }
        Ok(Tokens(vec![Token {
            secret: token.clone(),
            grant: Arc::new(Grant::all()),
        }]))
    }

    /// Reads a file of tokens. It is refused if other users can use it.
    pub(crate) fn read(path: &Path) -> Result<Tokens, Reason> {
        let invalid = || format!("invalid `:token-file` {}", path.display());
        let file = CredentialFile::read(path)
            .map_err(|error| Reason::caused_by("invalid `:token-file`", error))?;
        if let Some(weakness) = file.weakness {
            return Err(format!("{}: {weakness}", invalid()).into());
        }
        let text = std::str::from_utf8(&file.content)
            .map_err(|error| Reason::caused_by(invalid(), error))?;
        Tokens::parse(text).map_err(|reason| format!("{}: {reason}", invalid()).into())
    }

    /// Parses the lines of a file. No error has a part of the file in it: a token could be in the
    /// wrong place.
    fn parse(text: &str) -> Result<Tokens, String> {
        let mut tokens: Vec<(usize, Token)> = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let token = parse_line(content).map_err(|reason| format!("line {line}: {reason}"))?;
            for (other, earlier) in &tokens {
                let what = if earlier.grant.name == token.grant.name {
                    "name"
                } else if earlier.secret == token.secret {
                    "token"
                } else {
                    continue;
                };
                return Err(format!("lines {other} and {line} have the same {what}"));
            }
            tokens.push((line, token));
        }
        if tokens.is_empty() {
            return Err("it has no tokens; expected lines `NAME ROLES TOKEN`".to_owned());
        }
        Ok(Tokens(tokens.into_iter().map(|(_, token)| token).collect()))
    }

    /// What a token allows; `None` if it is unknown. Compares in constant time with all tokens: the
    /// duration reveals nothing about them but their lengths.
    pub(crate) fn find(&self, given: &str) -> Option<Arc<Grant>> {
        self.0.iter().fold(None, |found, token| {
            let is_equal = token.secret.expose().as_bytes().ct_eq(given.as_bytes());
            bool::from(is_equal).then(|| token.grant.clone()).or(found)
        })
    }

    /// Whether one of them can be guessed.
    pub(crate) fn has_short(&self) -> bool {
        self.0
            .iter()
            .any(|token| token.secret.expose().len() < MIN_TOKEN)
    }
}

fn parse_line(line: &str) -> Result<Token, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, roles, token] = words[..] else {
        let count = words.len();
        return Err(format!("expected `NAME ROLES TOKEN`, found {count} words"));
    };
    let roles: Option<Vec<Role>> = roles.split(',').map(Role::named).collect();
    let names = Role::ALL.map(Role::as_str).join(", ");
    let roles = roles.ok_or_else(|| {
        format!("unknown role; expected one or several of {names}, separated by commas only")
    })?;
    if token.len() < MIN_TOKEN {
        return Err(format!(
            "the token is too short; expected at least {MIN_TOKEN} characters"
        ));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token has characters that are not ASCII".to_owned());
    }
    Ok(Token {
        secret: Secret::new(token),
        grant: Arc::new(Grant {
            name: Some(name.to_owned()),
            roles,
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use pseidon_delivery::WithCauses;

    use super::*;

    const FILE: &str = "# tokens of the service\n\
        \n\
        prometheus read 0123456789abcdef\r\n\
        \tdeploy\tread,operate  ABCDEF0123456789\n\
          # a further one\n\
        support read,records,operate fedcba9876543210";

    #[test]
    fn a_file_has_a_token_with_its_roles_in_each_line() {
        let tokens = Tokens::parse(FILE).unwrap();
        let cases = [
            ("0123456789abcdef", "prometheus", "read"),
            ("ABCDEF0123456789", "deploy", "read operate"),
            ("fedcba9876543210", "support", "read operate records"),
        ];
        for (token, name, roles) in cases {
            let grant = tokens.find(token).unwrap();
            assert_eq!(grant.name.as_deref(), Some(name));
            for role in Role::ALL {
                let is_expected = roles.contains(role.as_str());
                assert_eq!(grant.allows(role), is_expected, "{name} {role:?}");
            }
        }
        for other in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "abcdef0123456789",
        ] {
            assert_eq!(tokens.find(other), None, "{other}");
        }
        assert!(!tokens.has_short());
    }

    #[test]
    fn a_wrong_line_is_refused_without_showing_it() {
        let lines = [
            (
                "a read",
                "line 2: expected `NAME ROLES TOKEN`, found 2 words",
            ),
            ("a read operate S3CRET-of-the-line", "found 4 words"),
            (
                "a write S3CRET-of-the-line",
                "line 2: unknown role; expected one or several of",
            ),
            ("a read, S3CRET-of-the-line", "unknown role"),
            ("a Read S3CRET-of-the-line", "unknown role"),
            ("a S3CRET-of-the-line read", "unknown role"),
            ("a read S3CRET-of-line", "at least 16 characters"),
            ("a read S3CRET-of-the-linë", "not ASCII"),
            (
                "first read S3CRET-of-the-line",
                "lines 1 and 2 have the same name",
            ),
            (
                "a read S3CRET-of-the-first",
                "lines 1 and 2 have the same token",
            ),
        ];
        for (line, expected) in lines {
            let text = format!("first operate S3CRET-of-the-first\n{line}\n");
            let error = Tokens::parse(&text).err().unwrap();
            assert!(error.contains(expected), "{line}: {error}");
            assert!(!error.contains("S3CRET"), "{error}");
        }
        for empty in ["", "\n# a read S3CRET-of-the-line\n"] {
            let error = Tokens::parse(empty).err().unwrap();
            assert!(error.contains("it has no tokens"), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let error = || {
            let error = Tokens::read(&path).err().unwrap();
            WithCauses(&error).to_string()
        };
        assert!(error().contains("os error 2"), "{}", error());
        std::fs::write(&path, FILE).unwrap();
        for (mode, expected) in [(0o644, "mode 0644"), (0o622, "mode 0622")] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert!(error().contains(expected), "{}", error());
            assert!(error().contains("tokens"), "it is named: {}", error());
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(Tokens::read(&path).is_ok());
        std::fs::write(&path, b"a read \xff").unwrap();
        assert!(error().contains("utf-8"), "{}", error());
        std::fs::write(&path, "x".repeat((1 << 20) + 1)).unwrap();
        assert!(error().contains("more than 1048576 bytes"), "{}", error());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(error().contains("not a regular file"), "{}", error());
    }
}
