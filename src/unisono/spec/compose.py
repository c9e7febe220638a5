"""
What Compose has and we can't honour: one table, with the reason for each.

These keys are known, so that a Compose file loads; each one that is used is named in a warning. What is
honoured stands in :mod:`unisono.spec.schema`. Unknown keys are errors there.

Source: https://github.com/compose-spec/compose-spec/blob/main/schema/compose-spec.json
"""

from __future__ import annotations

from collections.abc import Mapping

_CONTAINER = "has no effect on a process; it is for containers"
_NETWORK = "has no effect: services reach each other through the gateway, at $NAME_URL"
_FILES = "has no effect: a process sees the files of its machine"
_RIGHTS = "has no effect: a process has the rights of its user"
_LIMIT = "has no effect: of limits, those for CPU and memory are honoured (deploy.resources.limits)"
_LOGS = "has no effect: stdout and stderr go to rotated files, see `unisono logs`"
_KERNEL = "has no effect: a process runs under the kernel settings of its machine"
_META = "has no effect: nothing here reads it"

CONTAINERS = "is a container: this version starts processes only, so `unisono up` will refuse; "
COMMAND_ONLY = "without it the command is run as a process"
NO_COMMAND = "give it a command in its place"

SERVICE: Mapping[str, str] = {
    "annotations": _META,
    "attach": "has no effect: `unisono up` follows every service",
    "blkio_config": _LIMIT,
    "cap_add": _RIGHTS,
    "cap_drop": _RIGHTS,
    "cgroup": _CONTAINER,
    "cgroup_parent": _CONTAINER,
    "configs": _FILES,
    "container_name": "has no effect: instances are named after their service",
    "cpu_count": _LIMIT,
    "cpu_percent": _LIMIT,
    "cpu_period": _LIMIT,
    "cpu_quota": _LIMIT,
    "cpu_rt_period": _LIMIT,
    "cpu_rt_runtime": _LIMIT,
    "cpu_shares": _LIMIT,
    "cpuset": _LIMIT,
    "credential_spec": _CONTAINER,
    "develop": "has no effect: nothing watches your source files in this version",
    "device_cgroup_rules": _RIGHTS,
    "devices": _FILES,
    "dns": _NETWORK,
    "dns_opt": _NETWORK,
    "dns_search": _NETWORK,
    "domainname": _NETWORK,
    "external_links": _NETWORK,
    "extra_hosts": _NETWORK,
    "gpus": _FILES,
    "group_add": _RIGHTS,
    "hostname": _NETWORK,
    "init": _CONTAINER,
    "ipc": _CONTAINER,
    "isolation": _CONTAINER,
    "label_file": _META,
    "labels": _META,
    "links": "has no effect: name the service in depends_on to see its $NAME_URL",
    "logging": _LOGS,
    "mac_address": _NETWORK,
    "mem_reservation": "has no effect: one machine has nowhere else to place an instance",
    "mem_swappiness": _LIMIT,
    "memswap_limit": _LIMIT,
    "models": "has no effect: no language models are provided",
    "network_mode": _NETWORK,
    "networks": _NETWORK,
    "oom_kill_disable": _LIMIT,
    "oom_score_adj": _LIMIT,
    "pid": _CONTAINER,
    "pids_limit": _LIMIT,
    "platform": _CONTAINER,
    "post_start": "has no effect: there are no hooks; a release_command runs before a rollout",
    "pre_stop": "has no effect: there are no hooks; a program is told by its stop_signal",
    "privileged": _RIGHTS,
    "provider": "has no effect: there are no providers",
    "pull_policy": _CONTAINER,
    "pull_refresh_after": _CONTAINER,
    "read_only": _FILES,
    "runtime": _CONTAINER,
    "secrets": _FILES,
    "security_opt": _RIGHTS,
    "shm_size": _LIMIT,
    "stdin_open": "has no effect: a service has no standard input",
    "storage_opt": _CONTAINER,
    "sysctls": _KERNEL,
    "tmpfs": _FILES,
    "tty": "has no effect: a service has no terminal",
    "ulimits": _LIMIT,
    "use_api_socket": _CONTAINER,
    "userns_mode": _CONTAINER,
    "uts": _CONTAINER,
    "volumes": _FILES,
    "volumes_from": _FILES,
}

DEPLOY: Mapping[str, str] = {
    "endpoint_mode": _NETWORK,
    "labels": _META,
    "placement": "has no effect: there is one machine in this version",
    "rollback_config": "has no effect: a rollback follows update_config",
}

RESOURCES: Mapping[str, str] = {
    "reservations": "has no effect: one machine has nowhere else to place an instance",
}

LIMITS: Mapping[str, str] = {"pids": _LIMIT}

RESTART_POLICY: Mapping[str, str] = {
    "delay": "has no effect: the first restart is at once, later ones wait from 100 ms up to 30 s",
    "window": "has no effect: 10 s of health count as a successful start",
}

TOP_LEVEL: Mapping[str, str] = {
    "configs": _FILES,
    "models": "has no effect: no language models are provided",
    "networks": _NETWORK,
    "secrets": _FILES,
    "version": "is obsolete and has no effect",
    "volumes": _FILES,
}
