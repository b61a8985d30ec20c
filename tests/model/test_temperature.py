from __future__ import annotations

import pytest
import torch
from torch.optim import SGD

from labelmerge.model.temperature import Temperature


def test_starts_at_its_initial_value_and_learns() -> None:
    temperature = Temperature(0.07)
    tau = temperature()
    assert tau.item() == pytest.approx(0.07)
    tau.backward()
    assert temperature.log_tau.grad is not None and temperature.log_tau.grad.item() == pytest.approx(0.07)


def test_stays_within_its_bounds_and_can_come_back() -> None:
    temperature = Temperature(0.07, lowest=0.05, highest=0.1)
    optimiser = SGD(temperature.parameters(), lr=100.0)
    (-temperature()).backward()
    optimiser.step()
    assert temperature().item() == pytest.approx(0.1)
    optimiser.zero_grad()
    temperature().backward()
    optimiser.step()
    assert temperature().item() == pytest.approx(0.05)


def test_bounds_are_saved_with_it() -> None:
    other = Temperature()
    other.load_state_dict(Temperature(3.0, highest=5.0).state_dict())
    with torch.no_grad():
        assert other().item() == pytest.approx(3.0)


def test_an_initial_value_out_of_bounds() -> None:
    with pytest.raises(ValueError, match="within"):
        Temperature(2.0)
