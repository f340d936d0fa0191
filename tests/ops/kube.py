"""What the checks of Kubernetes objects share: strict schemas, and rules for every object of the project.

`kubernetes_validate` only warns about a kind without schema, so those are returned by name for crd.mjs.
"""

import functools
import json
import re

import kubernetes_validate
import kubernetes_validate.utils

# It would read its files, megabytes of them, for every object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
kubernetes_validate.utils.all_versions = functools.cache(kubernetes_validate.utils.all_versions)

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
# Checked by crd.mjs, with the schemas of their operators.
CUSTOM = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("cert-manager.io/v1", "Issuer"),
    ("cert-manager.io/v1", "Certificate"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
}
LABEL = re.compile(r"(|[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job"}


def title(thing):
    return f"{thing['kind']} {thing['metadata']['name']}"


def is_custom(thing):
    return (thing["apiVersion"], thing["kind"]) in CUSTOM


def schema_problems(thing, versions):
    """What the API server of each version would refuse: wrong types, unknown fields, unknown kinds."""
    if is_custom(thing):
        return
    # Names and labels differ from case to case and are no more than text.
    plain = {**thing, "metadata": {**thing["metadata"], "name": "name", "namespace": "namespace"}}
    text = json.dumps(plain, sort_keys=True)
    for version in versions:
        problem = schema_problem(text, version)
        if problem:
            yield f"{title(thing)}: Kubernetes {version}: {problem}"


@functools.cache
def schema_problem(text, version):
    """What is wrong with an object, given as JSON, or None."""
    thing = json.loads(text)
    try:
        kubernetes_validate.validate(thing, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(str(part) for part in error.path)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"there is no {thing['apiVersion']} {thing['kind']}"
    return None


def pod_of(thing):
    """The pod specification of a workload or pod, and the metadata of its pods."""
    if thing["kind"] == "Pod":
        return thing["spec"], thing["metadata"]
    if thing["kind"] == "CronJob":
        template = thing["spec"]["jobTemplate"]["spec"]["template"]
        return template["spec"], template.get("metadata", {})
    if thing["kind"] in WORKLOADS:
        template = thing["spec"]["template"]
        return template["spec"], template.get("metadata", {})
    return None, None


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def rule_problems(thing):
    """What is wrong by the rules of this project, whatever the values."""
    where = title(thing)
    metadata = thing["metadata"]
    longest = 253 if thing["kind"] in ("ConfigMap", "Secret", "MutatingWebhookConfiguration") else 63
    if len(metadata["name"]) > longest or not NAME.fullmatch(metadata["name"]):
        yield f"{where}: not a name that objects may have"
    for labels in (metadata.get("labels", {}), (pod_of(thing)[1] or {}).get("labels", {})):
        for name, value in labels.items():
            if not isinstance(value, str) or not LABEL.fullmatch(value):
                yield f"{where}: label {name} cannot be {value!r}"
    pod, pod_metadata = pod_of(thing)
    if pod is None:
        return
    if thing["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
        selector = thing["spec"]["selector"]["matchLabels"]
        if not selector.items() <= pod_metadata["labels"].items():
            yield f"{where}: selects other pods than its own"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{where}: mounts a token of the API server"
    for container in containers(pod):
        yield from container_problems(f"{where}: container {container['name']}", container, pod)


def container_problems(where, container, pod):
    context = container.get("securityContext", {})
    wanted = {
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for name, value in wanted.items():
        if context.get(name) != value:
            yield f"{where}: {name} is {context.get(name)!r}, not {value!r}"
    if not isinstance(context.get("runAsUser"), int) or context["runAsUser"] < 1000:
        yield f"{where}: runAsUser is {context.get('runAsUser')!r}"
    resources = container.get("resources", {})
    if "memory" not in resources.get("limits", {}) or "cpu" in resources.get("limits", {}):
        yield f"{where}: wants a memory limit and no CPU limit"
    if {"cpu", "memory"} - resources.get("requests", {}).keys():
        yield f"{where}: wants requests of CPU and memory"
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"{where}: mounts {mount['name']}, which is no volume of the pod"
        if "subPath" in mount:
            yield f"{where}: a subPath mount of {mount['name']} never sees a change"
    ports = {port["name"] for port in container.get("ports", []) if "name" in port}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        port = container.get(probe, {}).get("httpGet", {}).get("port")
        if isinstance(port, str) and port not in ports:
            yield f"{where}: {probe} asks port {port}, which it does not declare"
    for name in ports:
        if len(name) > 15:
            yield f"{where}: port name {name} has more than 15 characters"
