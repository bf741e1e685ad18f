"""Carries out the extraction of a study in a process of its own, which tests kill."""

import json
import sys
from datetime import date

from cohortflow.model import DataInterval, EnvDeployment
from cohortflow.workflow.plan import compile_plan
from cohortflow.workflow.run import Run
from cohortflow.workflow.steps.extract import extract_bulk
from cohortflow.workflow.study import Project

if __name__ == "__main__":
    study, day, run_id = sys.argv[1:]
    project = Project.default()
    run = Run(
        plan=compile_plan(project.load_study(study), "dev", project),
        interval=DataInterval.of_day(date.fromisoformat(day)),
        run_id=run_id,
        deployment=EnvDeployment(),
        catalog=project.catalog,
    )
    sys.stdout.write(json.dumps(extract_bulk(run).to_dict()) + "\n")
