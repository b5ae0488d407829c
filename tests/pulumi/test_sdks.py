"""The SDKs of other languages, which Pulumi's generator makes of the schema, compile whole: `pytest -m engine`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from osvdeploy.provider.schema import NAME
from tests.pulumi.cli import Cli, needs_language, needs_pulumi
from tests.pulumi.engine import MODULES

pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_pulumi]

SCHEMA = Path(__file__).parents[2] / "osvdeploy" / "provider" / NAME

TYPESCRIPT = """
import * as osvdeploy from "./index";

const image = new osvdeploy.Image("app", { file: "app", set: { version: "1.0.0" } });
const ami = new osvdeploy.aws.Ami("app", { disk: image.disk, env: { A: "b" }, instanceTypes: ["t3.small"] });
const service = new osvdeploy.aws.BlueGreenDeployment("app", {
    image: ami.id,
    environment: "test",
    listenerArn: "arn",
    subnetIds: ["subnet"],
    securityGroupIds: ["sg"],
    port: 8080,
    route: { path: "/*", priority: 100 },
    health: { path: "/healthz", versionHeader: "x-release", probeFrom: { command: ["ssh", "there"] } },
    strategy: { bake: "10m" },
    gates: [
        {
            metric: { cloudwatch: "HTTPCode_Target_5XX_Count", per: "RequestCount", max: 0.01, statistic: "sum" },
            on: [osvdeploy.GateStage.Bake],
            dryRun: true,
        },
        { metric: { json: "https://numbers.example/{{release}}", pointer: "/late", min: 1, noData: "pass" } },
    ],
    notify: [{ webhookVariable: "SLACK", format: "slack", on: [osvdeploy.NoticeKind.RolledBack] }],
    hooks: [
        { name: "smoke", on: ["verify", osvdeploy.HookStage.CleanUp], command: ["./smoke"], onFailure: "warn" },
        { name: "page", on: ["done"], url: "https://page.example", headerVariables: { Authorization: "TOKEN" } },
    ],
});
const boot = new osvdeploy.gcp.Image("app", { disk: image.disk, bucket: "b", labels: { a: "b" } });
export const release = service.activeRelease.apply((each: string | undefined) => each ?? boot.selfLink);
export const found = osvdeploy.getReleaseOutput({ service: "orders/production" }).image;
"""

WRONG = 'import * as osvdeploy from "./index";\nnew osvdeploy.Image("app", { fil: "app" });\n'

GO = """
package main

import (
	"example.com/pulumi-osvdeploy/sdk/go/osvdeploy"
	"example.com/pulumi-osvdeploy/sdk/go/osvdeploy/aws"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi/config"
)

func main() {
	pulumi.Run(func(ctx *pulumi.Context) error {
		image, err := osvdeploy.NewImage(ctx, "app", &osvdeploy.ImageArgs{
			File: pulumi.String("app"),
			Set:  pulumi.StringMap{"version": pulumi.String("1.2.0")},
		})
		if err != nil {
			return err
		}
		ctx.Export("digest", image.Digest)
		ctx.Export("version", image.Version)
		if config.GetBool(ctx, "deploy") {
			_, err = aws.NewBlueGreenDeployment(ctx, "app", &aws.BlueGreenDeploymentArgs{
				Image:       pulumi.String("ami-1"),
				Environment: pulumi.String("test"),
				ListenerArn: pulumi.String("arn"),
				SubnetIds:   pulumi.StringArray{pulumi.String("subnet")},
				Port:        pulumi.Int(8080),
				Health:      &osvdeploy.DeploymentHealthArgs{Path: pulumi.String("/healthz")},
				Gates: osvdeploy.DeploymentGateArray{osvdeploy.DeploymentGateArgs{
					Metric: osvdeploy.DeploymentGateMetricArgs{
						Command:  pulumi.StringArray{pulumi.String("./late"), pulumi.String("{{release}}")},
						Max:      pulumi.Float64(30),
						Interval: pulumi.String("15s"),
						Labels:   pulumi.StringMap{},
					},
					On: osvdeploy.GateStageArray{osvdeploy.GateStageBake},
				}},
				Notify: osvdeploy.DeploymentNotifyArray{osvdeploy.DeploymentNotifyArgs{
					Sns: pulumi.String("arn:aws:sns:eu-west-1:111122223333:rollouts"),
				}},
				Hooks: osvdeploy.DeploymentHookArray{osvdeploy.DeploymentHookArgs{
					Name:    pulumi.String("smoke"),
					On:      osvdeploy.HookStageArray{osvdeploy.HookStageVerify},
					Command: pulumi.StringArray{pulumi.String("./smoke")},
				}},
			})
		}
		return err
	})
}
"""


def run(words: Sequence[str | Path], folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=folder, env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=900,
    )  # fmt: skip


def succeeds(words: Sequence[str | Path], folder: Path, **environ: str) -> None:
    ran = run(words, folder, **environ)
    assert ran.returncode == 0, ran.stdout


def served(tool: str, words: Sequence[str], what: str) -> None:
    """Skip where a language's tool is not here, or its registry not in reach."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not here")
    asked = run(words, Path.cwd())
    if asked.returncode:
        pytest.skip(f"{what} is not in reach: {asked.stdout.strip()[-200:]}")


@needs_language("nodejs")
def test_typescript(tmp_path: Path) -> None:
    """Every file of it, by its own strict settings; a program that uses it is judged by its types."""
    served("npm", ["npm", "view", "@pulumi/pulumi", "version"], "npm's registry")
    succeeds(["pulumi", "package", "gen-sdk", SCHEMA, "--language", "nodejs", "--out", tmp_path], tmp_path)
    sdk = tmp_path / "nodejs"
    succeeds(["npm", "install", "--no-audit", "--no-fund", "--silent"], sdk)
    succeeds(["npx", "tsc", "--noEmit"], sdk)
    settings = (sdk / "tsconfig.json").read_text().replace('"aws/ami.ts"', '"program.ts", "aws/ami.ts"')
    (sdk / "tsconfig.json").write_text(settings)
    (sdk / "program.ts").write_text(TYPESCRIPT)
    succeeds(["npx", "tsc", "--noEmit"], sdk)
    (sdk / "program.ts").write_text(WRONG)
    assert "'fil' does not exist" in run(["npx", "tsc", "--noEmit"], sdk).stdout


@needs_language("go")
def test_go(tmp_path: Path) -> None:
    """Every package of it; a program that uses it, as `pulumi package add` begins it, is judged by its types."""
    module = "github.com/pulumi/pulumi/sdk/v3@v3.260.0"
    served("go", ["go", "list", "-m", "-json", module], "the proxy of Go's modules")
    (tmp_path / "program").mkdir()
    cli = Cli(tmp_path / "program", tmp_path / "pulumi", environ={
        "PULUMI_IGNORE_AMBIENT_PLUGINS": "true", "PYTHONPATH": MODULES,
    })  # fmt: skip
    (cli.folder / "Pulumi.yaml").write_text("name: project\nruntime: go\n")
    (cli.folder / "main.go").write_text("package main\n\nfunc main() {}\n")
    succeeds(["go", "mod", "init", "project"], cli.folder)
    succeeds(["go", "get", module], cli.folder)
    succeeds([sys.executable, "-m", "osvdeploy", "pulumi", "install"], cli.folder, **cli.environ)
    added = cli.run("package", "add", "osvdeploy", timeout=500)
    assert added.code == 0, added.text
    (cli.folder / "main.go").write_text(GO)
    succeeds(["go", "mod", "tidy"], cli.folder)
    succeeds(["go", "vet", ".", "example.com/pulumi-osvdeploy/sdk/go/..."], cli.folder)
    (packages,) = [line for line in (cli.folder / "Pulumi.yaml").read_text().splitlines() if "osvdeploy:" in line]
    version = json.loads(SCHEMA.read_text())["version"]
    assert packages.strip() == f"osvdeploy: osvdeploy@{version}"
