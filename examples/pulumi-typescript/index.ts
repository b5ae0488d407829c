// hello, from its spec to live traffic on Google Cloud: the disk, an image of it, and the service behind a balancer.

import * as pulumi from "@pulumi/pulumi";
import * as osvdeploy from "pulumi-osvdeploy";

const config = new pulumi.Config();
const zone = config.get("zone") ?? "europe-west1-b";
const machineType = config.get("machineType") ?? "e2-small";

const image = new osvdeploy.Image("hello", {
    file: config.get("app") ?? "../hello",
    set: { version: config.get("version") ?? "1.0.0" },
});

// A release is the disk and its variables. Another version, or another variable, is another image, which is rolled out.
const boot = new osvdeploy.gcp.Image("hello", {
    disk: image.disk,
    env: { HELLO_STACK: pulumi.getStack() },
    bucket: config.require("bucket"),
    machineTypes: [machineType],
    zone,
});

const service = new osvdeploy.gcp.BlueGreenDeployment("hello", {
    image: boot.selfLink,
    environment: pulumi.getStack(),
    urlMap: config.require("urlMap"),
    zone,
    machineType,
    networkTags: config.getObject<string[]>("networkTags"),
    capacity: config.getNumber("capacity") ?? 2,
    route: { path: "/*", priority: 100 },
    port: 8080,
    // hello names its release in each answer, so a rollout knows whose answer it got.
    health: { path: "/healthz", versionHeader: "x-release", minReady: config.get("minReady") ?? "10s" },
    strategy: { bake: config.get("bake") ?? "30s", keepWarm: "1h" },
});

export const release = service.activeRelease;
export const url = service.url;
