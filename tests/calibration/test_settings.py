"""All arguments of a calibration are one type, whichever door they come through."""

from __future__ import annotations

import inspect
from dataclasses import fields

from langchain_automix import acalibrate, calibrate
from langchain_automix.calibration.settings import CalibrationSettings


def test_both_functions_take_every_setting_by_its_name_and_default() -> None:
    signature = inspect.signature(calibrate)
    assert signature == inspect.signature(acalibrate)
    expected = {field.name: field.default for field in fields(CalibrationSettings)}
    del expected["examples"], expected["models"]
    options = list(signature.parameters.values())[2:]
    assert {option.name: option.default for option in options} == expected
    assert {option.kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}
