"""The rules, one a module: the `check` of every module in this folder is a rule, and nothing else lists it."""

from importlib import import_module
from pkgutil import iter_modules

from mlops_db.lint.rule import FileRule, HeadRule, Rule, RunRule

RULES: tuple[Rule, ...] = tuple(import_module(f"{__name__}.{module.name}").check for module in iter_modules(__path__))
FILE_RULES = [rule for rule in RULES if isinstance(rule, FileRule)]
RUN_RULES = [rule for rule in RULES if isinstance(rule, RunRule)]
HEAD_RULES = [rule for rule in RULES if isinstance(rule, HeadRule)]
ACCEPTABLE = [rule.name for rule in RULES if rule.may_be_accepted]
