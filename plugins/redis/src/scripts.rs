//! The steps of the protocol as Lua scripts, each of them atomic. Each file in `scripts/` documents
//! its keys and arguments.

use redis::{Cmd, ErrorKind, RedisResult, Script, ServerErrorKind, cmd};

/// All scripts of the store.
pub(crate) struct Scripts {
    pub(crate) take: LuaScript,
    pub(crate) hold: LuaScript,
    pub(crate) release: LuaScript,
    pub(crate) commit: LuaScript,
    pub(crate) owners: LuaScript,
    pub(crate) records: LuaScript,
    pub(crate) claim: LuaScript,
    pub(crate) unclaim: LuaScript,
    pub(crate) forget_splits: LuaScript,
    pub(crate) move_splits: LuaScript,
    pub(crate) clear: LuaScript,
}

impl Scripts {
    pub(crate) fn new() -> Scripts {
        Scripts {
            take: LuaScript::new(include_str!("scripts/take.lua")),
            hold: LuaScript::new(include_str!("scripts/hold.lua")),
            release: LuaScript::new(include_str!("scripts/release.lua")),
            commit: LuaScript::new(include_str!("scripts/commit.lua")),
            owners: LuaScript::new(include_str!("scripts/owners.lua")),
            records: LuaScript::new(include_str!("scripts/records.lua")),
            claim: LuaScript::new(include_str!("scripts/claim.lua")),
            unclaim: LuaScript::new(include_str!("scripts/unclaim.lua")),
            forget_splits: LuaScript::new(include_str!("scripts/forget_splits.lua")),
            move_splits: LuaScript::new(include_str!("scripts/move_splits.lua")),
            clear: LuaScript::new(include_str!("scripts/clear.lua")),
        }
    }
}

/// A script and its digest, under which the server caches it after its first run.
pub(crate) struct LuaScript {
    code: &'static str,
    digest: String,
}

impl LuaScript {
    fn new(code: &'static str) -> LuaScript {
        LuaScript {
            code,
            digest: Script::new(code).get_hash().to_owned(),
        }
    }

    /// A call without keys or arguments.
    pub(crate) fn call(&self) -> ScriptCall<'_> {
        ScriptCall {
            script: self,
            keys: Vec::new(),
            arguments: Vec::new(),
        }
    }
}

/// A call that has not been sent.
pub(crate) struct ScriptCall<'a> {
    script: &'a LuaScript,
    keys: Vec<String>,
    arguments: Vec<String>,
}

impl ScriptCall<'_> {
    pub(crate) fn key(&mut self, key: String) -> &mut Self {
        self.keys.push(key);
        self
    }

    pub(crate) fn arg(&mut self, argument: impl ToString) -> &mut Self {
        self.arguments.push(argument.to_string());
        self
    }

    /// Sends the digest, and the script itself only to a server that does not have it. (The library
    /// would load the script into every node of a cluster, and fail if one of them hangs, even if
    /// that node has none of the pipeline's keys.)
    pub(crate) fn send<T>(&self, mut send: impl FnMut(&Cmd) -> RedisResult<T>) -> RedisResult<T> {
        match send(&self.command("EVALSHA", &self.script.digest)) {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                send(&self.command("EVAL", self.script.code))
            }
            answer => answer,
        }
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = cmd(name);
        command
            .arg(script)
            .arg(self.keys.len())
            .arg(&self.keys)
            .arg(&self.arguments);
        command
    }
}
