//! Stages as the planner sees them: a plugin with its checked options.
//!
//! Each plugin has its own type of options, which only the plugin knows. A registry therefore has
//! factories: they parse the arguments of a stage, and from then on the stage has its options.

use std::sync::Arc;

use pseidon_dsl::expr::Expr;
use pseidon_dsl::{Node, Span};

use crate::options::{OnError, Options, ParseResult};
use crate::sink::{PreparedSink, SinkFacts, SinkInput, SinkPlugin};
use crate::source::{Source, SourcePlugin};
use crate::spec::PluginSpec;

/// What the planner needs to know about the options of a stage.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// The declaration of the plugin.
    pub spec: &'static PluginSpec,
    /// The position of the stage's definition.
    pub span: Span,
    /// The value of `:on-error`.
    pub on_error: OnError,
    /// Names and values of the options that decide which lanes the stage has and what it writes,
    /// sorted by name.
    pub identity: Vec<(&'static str, String)>,
    /// Every expression in the options.
    pub exprs: Vec<Expr>,
}

impl StageOptions {
    fn new(
        spec: &'static PluginSpec,
        span: Span,
        on_error: OnError,
        options: &impl Options,
    ) -> StageOptions {
        let mut identity = Vec::new();
        options.identity(&mut identity);
        identity.sort_by_key(|(name, _)| *name);
        let mut exprs = Vec::new();
        options.exprs(&mut exprs);
        StageOptions {
            spec,
            span,
            on_error,
            identity,
            exprs: exprs.into_iter().cloned().collect(),
        }
    }
}

/// A source plugin with any type of options.
pub trait SourceFactory: Send + Sync {
    /// The declaration of the plugin.
    fn spec(&self) -> &'static PluginSpec;

    /// Parses the arguments of a stage whose definition is at `span`.
    ///
    /// # Errors
    /// All errors in the arguments.
    fn configure(self: Arc<Self>, args: &[Node], span: Span) -> ParseResult<SourceStage>;
}

impl<P: SourcePlugin> SourceFactory for P {
    fn spec(&self) -> &'static PluginSpec {
        SourcePlugin::spec(self)
    }

    fn configure(self: Arc<Self>, args: &[Node], span: Span) -> ParseResult<SourceStage> {
        let spec = SourcePlugin::spec(&*self);
        let options = P::Options::parse_stage(spec, args, span)?;
        Ok(SourceStage {
            options: StageOptions::new(spec, span, self.on_error(&options), &options),
            prepare: Box::new(move || self.prepare(&options)),
        })
    }
}

/// A source of a pipeline file.
pub struct SourceStage {
    /// What its options are.
    pub options: StageOptions,
    prepare: PrepareSource,
}

type PrepareSource = Box<dyn Fn() -> ParseResult<Arc<dyn Source>> + Send + Sync>;

impl SourceStage {
    /// A stage that no plugin declares, with a function that creates its source.
    pub fn new(
        options: StageOptions,
        prepare: impl Fn() -> ParseResult<Arc<dyn Source>> + Send + Sync + 'static,
    ) -> SourceStage {
        SourceStage {
            options,
            prepare: Box::new(prepare),
        }
    }

    /// Creates the source. See [`SourcePlugin::prepare`].
    pub fn prepare(&self) -> ParseResult<Arc<dyn Source>> {
        (self.prepare)()
    }
}

/// A sink plugin with any type of options.
pub trait SinkFactory: Send + Sync {
    /// The declaration of the plugin.
    fn spec(&self) -> &'static PluginSpec;

    /// Parses the arguments of a stage whose definition is at `span`.
    ///
    /// # Errors
    /// All errors in the arguments.
    fn configure(self: Arc<Self>, args: &[Node], span: Span) -> ParseResult<SinkStage>;
}

impl<P: SinkPlugin> SinkFactory for P {
    fn spec(&self) -> &'static PluginSpec {
        SinkPlugin::spec(self)
    }

    fn configure(self: Arc<Self>, args: &[Node], span: Span) -> ParseResult<SinkStage> {
        let spec = SinkPlugin::spec(&*self);
        let options = P::Options::parse_stage(spec, args, span)?;
        Ok(SinkStage {
            options: StageOptions::new(spec, span, self.on_error(&options), &options),
            facts: self.facts(&options),
            prepare: Box::new(move |input| self.prepare(&options, input)),
        })
    }
}

/// A sink of a pipeline file.
pub struct SinkStage {
    /// What its options are.
    pub options: StageOptions,
    /// What the planner needs to know about the sink.
    pub facts: SinkFacts,
    prepare: PrepareSink,
}

type PrepareSink = Box<dyn Fn(&SinkInput) -> ParseResult<Arc<dyn PreparedSink>> + Send + Sync>;

impl SinkStage {
    /// A stage that no plugin declares, with a function that creates its sink.
    pub fn new(
        options: StageOptions,
        facts: SinkFacts,
        prepare: impl Fn(&SinkInput) -> ParseResult<Arc<dyn PreparedSink>> + Send + Sync + 'static,
    ) -> SinkStage {
        SinkStage {
            options,
            facts,
            prepare: Box::new(prepare),
        }
    }

    /// Creates the sink for this input. See [`SinkPlugin::prepare`].
    pub fn prepare(&self, input: &SinkInput) -> ParseResult<Arc<dyn PreparedSink>> {
        (self.prepare)(input)
    }
}
