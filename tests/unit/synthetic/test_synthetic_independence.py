"""What the model does not link is not linked: a study on these patients finds no artefact of it."""

from __future__ import annotations

import numpy as np
import pytest

from cohortflow.synthetic.people import People, Trait, draw_people
from cohortflow.synthetic.scene import Scene, Stage
from cohortflow.synthetic.timeline import Draw

AS_OF = 20_758  # 2026-11-01


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.play(Stage.build(5, AS_OF), 0, 4000)


def correlations(columns: np.ndarray) -> np.ndarray:
    table = np.corrcoef(columns, rowvar=False)
    return np.abs(table - np.eye(len(table)))


def test_draws_of_a_visit_are_independent(scene):
    words = scene.visits.words.astype(np.float64)
    # The draws that decide whether a visit takes place are selected by it.
    free = [draw for draw in Draw if draw not in {Draw.DAY, Draw.ATTENDANCE}]
    assert correlations(words[:, free]).max() < 0.025


def test_traits_are_independent_of_each_other_and_of_the_disease(scene):
    people: People = scene.people
    latent = np.stack([people.frailty, people.height_z, people.bmi_z, people.t2d, people.female], axis=1)
    table = np.concatenate([people.traits.astype(np.float64), latent, people.serial[:, None]], axis=1)
    assert table.shape[1] == len(Trait) + 6
    assert correlations(table).max() < 0.08


def test_neighbours_are_as_different_as_strangers(scene):
    people = scene.people
    for column in (people.birth_day, people.frailty, people.female, people.clinic):
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 0.08


def test_clinics_are_drawn_alike_with_and_without_the_rest(scene):
    part = draw_people(scene.stage.streams, 100, 50, AS_OF)
    assert np.array_equal(part.clinic, scene.people.clinic[100:150])
