"""Metrics: one file a family, each metric a decorated function; docs/plugins.md has a whole example."""

from bench.metrics.declare import Encoder as Encoder
from bench.metrics.declare import Inputs as Inputs
from bench.metrics.declare import LoadedEncoder as LoadedEncoder
from bench.metrics.declare import LoadedRewardModel as LoadedRewardModel
from bench.metrics.declare import Metric as Metric
from bench.metrics.declare import NoScoreError as NoScoreError
from bench.metrics.declare import Place as Place
from bench.metrics.declare import SetInputs as SetInputs
from bench.metrics.declare import SetMetric as SetMetric
from bench.metrics.declare import encoder as encoder
from bench.metrics.declare import metric as metric
from bench.metrics.declare import set_metric as set_metric
from bench.metrics.registry import Registry as Registry
from bench.metrics.registry import all_facts as all_facts
from bench.metrics.registry import all_metrics as all_metrics
from bench.metrics.registry import facts_for as facts_for
from bench.metrics.registry import facts_of_run as facts_of_run
from bench.metrics.registry import installed as installed
from bench.metrics.registry import plugin_problems as plugin_problems
from bench.metrics.registry import registry_of as registry_of
from bench.metrics.registry import training_of_metrics as training_of_metrics
