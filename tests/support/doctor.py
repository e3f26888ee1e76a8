"""Runs the doctor as people do, and reads what it said."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.tool import Tool
from worker.simulator.options import Options
from worker.simulator.server import Simulator

SECRET = "s3cret-of-the-client"
PASSWORD = "p4ss-of-the-broker"


@dataclass(slots=True, frozen=True)
class Checked:
    """What one run of the doctor said."""

    code: int
    findings: list[dict[str, str]]
    output: str

    def of(self, level: str) -> dict[str, str]:
        """Subject -> what was seen, of this level."""
        return {each["subject"]: each["seen"] for each in self.findings if each["level"] == level}

    def about(self, subject: str) -> list[dict[str, str]]:
        """The findings whose subject begins like this."""
        return [each for each in self.findings if each["subject"].startswith(subject)]


async def check(tool: Tool, **settings: str) -> Checked:
    """Run the doctor; whatever it finds, there is no traceback and no secret."""
    done = await tool.run("check", "--json", stdin=b"", **settings)
    output = done.stdout + done.stderr

    assert "Traceback" not in output
    assert SECRET not in output
    assert PASSWORD not in output
    return Checked(done.code, json.loads(done.stdout)["findings"] if done.stdout else [], output)


@asynccontextmanager
async def platform(options: Options | None = None) -> AsyncIterator[tuple[Simulator, dict[str, str]]]:
    """A stand-in platform and the settings that lead to it."""
    simulator = Simulator(options or Options(client_secret=SECRET))
    async with simulator.serve() as address:
        yield (
            simulator,
            {
                "OAUTH_URL": address.oauth_url,
                "GRAPHQL_URL": address.graphql_url,
                "CLIENT_ID": simulator.options.client_id,
                "CLIENT_SECRET": SECRET,
                "RETRY_DELAYS_S": "0.2,60",
            },
        )
