# What `import langchain_automix` offers, for editors and type checkers.

from langchain_automix._version import __version__ as __version__
from langchain_automix.calibration.calibrate import acalibrate as acalibrate
from langchain_automix.calibration.calibrate import calibrate as calibrate
from langchain_automix.calibration.langsmith.experiment import (
    aevaluate_on_langsmith as aevaluate_on_langsmith,
)
from langchain_automix.calibration.langsmith.experiment import (
    evaluate_on_langsmith as evaluate_on_langsmith,
)
from langchain_automix.calibration.langsmith.log import log_from_langsmith as log_from_langsmith
from langchain_automix.errors import AutoMixError as AutoMixError
from langchain_automix.errors import CutShortError as CutShortError
from langchain_automix.errors import DeadlineError as DeadlineError
from langchain_automix.errors import ModelsFailedError as ModelsFailedError
from langchain_automix.errors import SpendLimitReachedError as SpendLimitReachedError
from langchain_automix.evaluation.compare_verifiers import compare_verifiers as compare_verifiers
from langchain_automix.evaluation.comparison import Comparison as Comparison
from langchain_automix.evaluation.evaluate import evaluate as evaluate
from langchain_automix.evaluation.result import Evaluation as Evaluation
from langchain_automix.learning.learning import Learning as Learning
from langchain_automix.learning.status import LearningStatus as LearningStatus
from langchain_automix.learning.store.writer import LearningWarning as LearningWarning
from langchain_automix.mix.account import MixCostWarning as MixCostWarning
from langchain_automix.mix.chat_model import ChatAutoMix as ChatAutoMix
from langchain_automix.mix.explain import explain as explain
from langchain_automix.mix.limits.circuit_breaker import CircuitBreaker as CircuitBreaker
from langchain_automix.mix.limits.repeated_failures import (
    RepeatedFailureWarning as RepeatedFailureWarning,
)
from langchain_automix.mix.limits.spend_limit import SpendLimit as SpendLimit
from langchain_automix.mix.limits.spend_store import SpendWarning as SpendWarning
from langchain_automix.mix.middleware import AutoMixMiddleware as AutoMixMiddleware
from langchain_automix.mix.runnable import AutoMixRunnable as AutoMixRunnable
from langchain_automix.mix.totals import AutoMixTotals as AutoMixTotals
from langchain_automix.models.prices import PriceWarning as PriceWarning
from langchain_automix.policy.data.log import RoutingLog as RoutingLog
from langchain_automix.report.report import Report as Report
from langchain_automix.routers.pomdp import POMDPRouter as POMDPRouter
from langchain_automix.routers.pomdp import UncalibratedWarning as UncalibratedWarning
from langchain_automix.routers.pomdp import VerifierChangedWarning as VerifierChangedWarning
from langchain_automix.routers.threshold import ThresholdRouter as ThresholdRouter
from langchain_automix.serve.app import create_app as create_app
from langchain_automix.serve.keys import ApiKey as ApiKey
from langchain_automix.serve.mixes import PolicyFile as PolicyFile
from langchain_automix.serve.observing import ServedQuery as ServedQuery
from langchain_automix.serve.settings import ServeSettings as ServeSettings
from langchain_automix.types import Decision as Decision
from langchain_automix.types import RoutingState as RoutingState
from langchain_automix.types import Verification as Verification
from langchain_automix.types import Visit as Visit
from langchain_automix.verifiers.agreement import AgreementVerifier as AgreementVerifier
from langchain_automix.verifiers.agreement import (
    EarlierAgreementVerifier as EarlierAgreementVerifier,
)
from langchain_automix.verifiers.combined import CombinedVerifier as CombinedVerifier
from langchain_automix.verifiers.decision_model import DecisionVerifier as DecisionVerifier
from langchain_automix.verifiers.default import DefaultVerifier as DefaultVerifier
from langchain_automix.verifiers.log_probability import (
    LogProbabilityVerifier as LogProbabilityVerifier,
)
from langchain_automix.verifiers.prompting.wording import Wording as Wording
from langchain_automix.verifiers.rules import FunctionVerifier as FunctionVerifier
from langchain_automix.verifiers.rules import PatternVerifier as PatternVerifier
from langchain_automix.verifiers.rules import SchemaVerifier as SchemaVerifier
from langchain_automix.verifiers.self_verifier import SelfVerifier as SelfVerifier
from langchain_automix.verifiers.support import SupportVerifier as SupportVerifier
from langchain_automix.verifiers.token_probability import (
    TokenProbabilityVerifier as TokenProbabilityVerifier,
)

__all__: list[str]  # noqa: PYI035  (made of a table at run time)
