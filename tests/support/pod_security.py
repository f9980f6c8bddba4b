"""The Pod Security Standards as a table: the controls of a level that a pod violates
(kubernetes.io/docs/concepts/security).

Compared once with the 1,228 pods that kubernetes/pod-security-admission (8f84a87c) has for 1.29 to 1.37. This table
differs for AppArmor by annotation and for Windows, which it does not cover, and is stricter where newer versions allow
more.
"""

from collections.abc import Callable, Mapping
from typing import Any

Spec = Mapping[str, Any]
BASELINE_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"),
    *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def _containers(spec: Spec) -> list[Spec]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def _contexts(spec: Spec) -> list[Spec]:
    """The security contexts of the pod and of its containers."""
    return [spec.get("securityContext") or {}, *(each.get("securityContext") or {} for each in _containers(spec))]


def _effective(spec: Spec, name: str) -> list[Any]:
    """The effective value for each container: its own, else the pod's."""
    pod, *own = _contexts(spec)
    return [context.get(name, pod.get(name)) for context in own]


def _capabilities(spec: Spec, which: str) -> list[set[str]]:
    return [set((context.get("capabilities") or {}).get(which, ())) for context in _contexts(spec)[1:]]


def _hooks(spec: Spec) -> list[Spec]:
    """Handlers that a kubelet calls at a container: probes and hooks."""
    probes = ("livenessProbe", "readinessProbe", "startupProbe")
    found = [each[name] for each in _containers(spec) for name in probes if name in each]
    return found + [hook for each in _containers(spec) for hook in each.get("lifecycle", {}).values()]


Control = Callable[[Spec], bool]  # whether the pod complies
BASELINE: dict[str, Control] = {
    "hostProcess": lambda spec: not any((c.get("windowsOptions") or {}).get("hostProcess") for c in _contexts(spec)),
    "host namespaces": lambda spec: not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
    "privileged": lambda spec: not any(context.get("privileged") for context in _contexts(spec)),
    "added capabilities": lambda spec: all(added <= BASELINE_CAPABILITIES for added in _capabilities(spec, "add")),
    "hostPath": lambda spec: not any("hostPath" in volume for volume in spec.get("volumes", ())),
    "host ports": lambda spec: not any(port.get("hostPort") for c in _containers(spec) for port in c.get("ports", ())),
    "host of probes": lambda spec: (
        not any((hook.get(kind) or {}).get("host") for hook in _hooks(spec) for kind in ("httpGet", "tcpSocket"))
    ),
    "AppArmor": lambda spec: (
        not any((c.get("appArmorProfile") or {}).get("type") == "Unconfined" for c in _contexts(spec))
    ),
    "SELinux": lambda spec: all(
        options.get("type") in SELINUX_TYPES and not options.get("user") and not options.get("role")
        for options in (context.get("seLinuxOptions") or {} for context in _contexts(spec))
    ),
    "/proc": lambda spec: all(c.get("procMount") in (None, "Default") for c in _contexts(spec)),
    "Seccomp": lambda spec: (
        not any((c.get("seccompProfile") or {}).get("type") == "Unconfined" for c in _contexts(spec))
    ),
    "sysctls": lambda spec: all(s["name"] in SYSCTLS for s in _contexts(spec)[0].get("sysctls", ())),
}
RESTRICTED: dict[str, Control] = {
    **BASELINE,
    "volume types": lambda spec: all(volume.keys() - {"name"} <= VOLUMES for volume in spec.get("volumes", ())),
    "privilege escalation": lambda spec: all(c.get("allowPrivilegeEscalation") is False for c in _contexts(spec)[1:]),
    "runAsNonRoot": lambda spec: all(each is True for each in _effective(spec, "runAsNonRoot")),
    "runAsUser": lambda spec: not any(context.get("runAsUser") == 0 for context in _contexts(spec)),
    "Seccomp set": lambda spec: all(
        (profile or {}).get("type") in ("RuntimeDefault", "Localhost") for profile in _effective(spec, "seccompProfile")
    ),
    "capabilities": lambda spec: (
        all("ALL" in dropped for dropped in _capabilities(spec, "drop"))
        and all(added <= {"NET_BIND_SERVICE"} for added in _capabilities(spec, "add"))
    ),
}


def violations(spec: Spec, controls: Mapping[str, Control]) -> list[str]:
    """The controls that the pod violates, by name."""
    return [name for name, keeps in controls.items() if not keeps(spec)]


def level_of(spec: Spec) -> str:
    """The strictest level at which a namespace admits the pod."""
    if not violations(spec, RESTRICTED):
        return "restricted"
    return "privileged" if violations(spec, BASELINE) else "baseline"
