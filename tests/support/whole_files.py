"""The order in which pytest-xdist hands out tests: whole files, from both ends of the suite.

Tests of a file share fixtures and traced programs, and so do neighbouring files; a worker that gets
every second test builds and traces all of them. Half of the workers begin with the first file and
half with the last, so that each has half of the folders, wherever they meet.
"""

import pytest

# Its tests share engines, whose programs are compiled when they start, and must find them there.
ONE_WORKER = "tests/serving/"


@pytest.hookimpl(optionalhook=True)  # pytest-xdist may be missing
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    if config.getoption("dist") != "load":
        return None  # the command line names another order

    class WholeFiles(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return ONE_WORKER if nodeid.startswith(ONE_WORKER) else nodeid.split("::")[0]

        def _assign_work_unit(self, node):
            if self.nodes.index(node) % 2:
                self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
            super()._assign_work_unit(node)

    config.option.loadscopereorder = False
    return WholeFiles(config, log)
