from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

import minhos_mesh
from minhos_mesh.registry.domain.actions import ACTIONS
from minhos_mesh.registry.domain.health import (
    Assessment,
    Cause,
    Condition,
    DependencyFacts,
    InstanceFacts,
    Reason,
    Requirement,
    ServiceFacts,
    Serving,
    Silence,
    State,
    assess_instance,
    assess_mesh,
    assess_service,
    may_serve,
    suggested_action,
)
from minhos_mesh.registry.domain.history import find_changes
from minhos_mesh.sierra_client import bridge_status, dtc_view
from minhos_mesh.sierra_client import service as sierra_client
from minhos_mesh.trading_engine import order_conditions

OK = InstanceFacts("a-1", serving=Serving.SERVING, ever_ready=True)
NO_TICKS = Condition("NO_TICKS", "no tick for 5 minutes in an open session")
S, C = State, Cause

INSTANCE_TABLE = [
    ("attached, silent about health", InstanceFacts("a-1"), S.STARTING, [C.NOT_READY]),
    ("says it serves, not yet let in", replace(OK, ever_ready=False), S.STARTING, [C.NOT_READY]),
    ("not serving and never was", InstanceFacts("a-1", serving=Serving.NOT_SERVING), S.STARTING, [C.NOT_READY]),
    ("serving", OK, S.HEALTHY, []),
    ("serving with a condition", replace(OK, conditions=(NO_TICKS,)), S.DEGRADED, [C.CONDITION]),
    ("no longer serving", replace(OK, serving=Serving.NOT_SERVING), S.UNHEALTHY, [C.NOT_SERVING]),
    ("one check unanswered", replace(OK, check_failures=1, check_error="timeout"), S.DEGRADED, [C.CHECK_FAILED]),
    ("two checks unanswered", replace(OK, check_failures=2, check_error="timeout"), S.UNHEALTHY, [C.CHECK_FAILED]),
    ("late", replace(OK, silence=Silence.LATE, silent_seconds=2.1), S.UNHEALTHY, [C.HEARTBEAT_LATE]),
    ("expired", replace(OK, silence=Silence.EXPIRED, silent_seconds=3.0), S.UNHEALTHY, [C.LEASE_EXPIRED]),
    ("lost", replace(OK, silence=Silence.LOST), S.UNHEALTHY, [C.CONNECTION_LOST]),
    ("exited", replace(OK, exit_text="exit code 1"), S.UNHEALTHY, [C.PROCESS_EXITED]),
    ("draining", replace(OK, leaving=True), S.STOPPING, [C.DRAINING]),
    ("draining, already not serving", replace(OK, leaving=True, serving=Serving.NOT_SERVING), S.STOPPING, [C.DRAINING]),
    ("killed while draining", replace(OK, leaving=True, silence=Silence.LOST), S.UNHEALTHY, [C.CONNECTION_LOST]),
    ("draining, answers no check", replace(OK, leaving=True, check_failures=2), S.STOPPING, [C.DRAINING]),
    ("draining, beats no more", replace(OK, leaving=True, silence=Silence.LATE), S.STOPPING, [C.DRAINING]),
]


@pytest.mark.parametrize(("_name", "facts", "state", "causes"), INSTANCE_TABLE, ids=[row[0] for row in INSTANCE_TABLE])
def test_instance_state(_name: str, facts: InstanceFacts, state: State, causes: list[Cause]) -> None:
    assessment = assess_instance(facts)
    assert (assessment.state, [r.cause for r in assessment.reasons]) == (state, causes)


DOWN = replace(OK, instance_id="a-2", silence=Silence.EXPIRED, silent_seconds=3.0)
NEEDS_BUS_UP = DependencyFacts("event_bus", S.HEALTHY)
NEEDS_BUS_DOWN = DependencyFacts("event_bus", S.UNHEALTHY)
FRESH = replace(OK, ever_ready=False)
NEW = InstanceFacts("a-3")
KILLED = Reason(C.PROCESS_EXITED, "", "was ended by SIGKILL")
SLOW = Reason(C.START_TIMEOUT, "", "does not serve after 15 s")
LOOPING = Reason(C.CRASH_LOOP, "", "process 7 ended with code 1; starts again in 10 s")
DEAD = replace(OK, instance_id="a-4", exit_text="process 8 ended with code 1")
LIMPING = replace(OK, instance_id="a-5", conditions=(NO_TICKS,))
LEAVING = replace(OK, instance_id="a-6", leaving=True)


def svc(*instances: InstanceFacts, wanted: bool = True, needs: tuple[DependencyFacts, ...] = ()) -> ServiceFacts:
    return ServiceFacts("a", wanted, instances, needs)


def of(wanted: int, *instances: InstanceFacts) -> ServiceFacts:
    return replace(svc(*instances), wanted_instances=wanted)


SERVICE_TABLE = [
    ("not wanted, nothing there", svc(wanted=False), S.STOPPED, [C.NOT_WANTED]),
    ("wanted, not there yet", svc(), S.STARTING, [C.NOT_ATTACHED]),
    ("its process ended", replace(svc(), trouble=KILLED), S.UNHEALTHY, [C.PROCESS_EXITED]),
    ("too slow, though attached", replace(svc(NEW), trouble=SLOW), S.UNHEALTHY, [C.START_TIMEOUT, C.NOT_READY]),
    ("too slow, but there at last", replace(svc(OK), trouble=SLOW), S.HEALTHY, []),
    ("asked to end", replace(svc(wanted=False), stopping=True), S.STOPPING, [C.DRAINING]),
    ("waits for its dependency", svc(needs=(NEEDS_BUS_DOWN,)), S.STARTING, [C.DEPENDENCY_AWAITED, C.NOT_ATTACHED]),
    ("one healthy", svc(OK), S.HEALTHY, []),
    ("two, one down", svc(OK, DOWN), S.DEGRADED, [C.INSTANCE_DOWN]),
    ("two, one starting", svc(OK, InstanceFacts("a-3")), S.HEALTHY, []),
    ("two, one leaving", svc(OK, replace(OK, instance_id="a-3", leaving=True)), S.HEALTHY, []),
    ("only one, leaving", svc(replace(OK, leaving=True)), S.STOPPING, [C.DRAINING]),
    ("three, two down", svc(OK, DOWN, DEAD), S.DEGRADED, [C.INSTANCE_DOWN, C.INSTANCE_DOWN]),
    ("two, both limping", svc(LIMPING, LIMPING), S.DEGRADED, [C.CONDITION, C.CONDITION]),
    ("two, one limping", svc(OK, LIMPING), S.DEGRADED, [C.CONDITION]),
    ("two, one leaving, one down", svc(LEAVING, DOWN), S.UNHEALTHY, [C.DRAINING, C.LEASE_EXPIRED]),
    ("two, both down", svc(DOWN, DEAD), S.UNHEALTHY, [C.LEASE_EXPIRED, C.PROCESS_EXITED]),
    ("two, both starting", svc(NEW, replace(NEW, instance_id="a-4")), S.STARTING, [C.NOT_READY, C.NOT_READY]),
    ("two, both leaving", svc(LEAVING, LEAVING), S.STOPPING, [C.DRAINING, C.DRAINING]),
    ("one leaving, its successor starting", svc(LEAVING, NEW), S.STARTING, [C.DRAINING, C.NOT_READY]),
    ("two wanted, both serve", of(2, OK, replace(OK, instance_id="a-2")), S.HEALTHY, []),
    ("two wanted, one serves", of(2, OK), S.DEGRADED, [C.INSTANCES_MISSING]),
    ("two wanted, one starting", of(2, OK, NEW), S.DEGRADED, [C.INSTANCES_MISSING]),
    ("two wanted, one down", of(2, OK, DOWN), S.DEGRADED, [C.INSTANCE_DOWN]),
    ("three wanted, one serves, one down", of(3, OK, DOWN), S.DEGRADED, [C.INSTANCE_DOWN, C.INSTANCES_MISSING]),
    (
        "two wanted, one crashes again and again",
        replace(of(2, OK), trouble=LOOPING),
        S.DEGRADED,
        [C.INSTANCES_MISSING, C.CRASH_LOOP],
    ),
    ("one wanted, two there during a replacement", of(1, OK, replace(OK, instance_id="a-2")), S.HEALTHY, []),
    ("two wanted, none there", of(2), S.STARTING, [C.NOT_ATTACHED]),
    ("crashes again and again", replace(svc(), trouble=LOOPING), S.UNHEALTHY, [C.CRASH_LOOP]),
    ("all down", svc(DOWN), S.UNHEALTHY, [C.LEASE_EXPIRED]),
    ("one down, its successor starting", svc(DOWN, InstanceFacts("a-3")), S.STARTING, [C.LEASE_EXPIRED, C.NOT_READY]),
    ("dependency up", svc(OK, needs=(NEEDS_BUS_UP,)), S.HEALTHY, []),
    ("dependency degraded still serves", svc(OK, needs=(DependencyFacts("b", S.DEGRADED),)), S.HEALTHY, []),
    ("dependency down", svc(OK, needs=(NEEDS_BUS_DOWN,)), S.DEGRADED, [C.DEPENDENCY_DOWN]),
    ("dependency stopped", svc(OK, needs=(DependencyFacts("b", S.STOPPED),)), S.DEGRADED, [C.DEPENDENCY_DOWN]),
    ("dependency starting", svc(OK, needs=(DependencyFacts("b", S.STARTING),)), S.DEGRADED, [C.DEPENDENCY_DOWN]),
    ("optional dependency down", svc(OK, needs=(DependencyFacts("b", S.STOPPED, required=False),)), S.HEALTHY, []),
    (
        "dependency missing from the start",
        svc(FRESH, needs=(NEEDS_BUS_DOWN,)),
        S.STARTING,
        [C.DEPENDENCY_AWAITED, C.NOT_READY],
    ),
]


@pytest.mark.parametrize(("_name", "facts", "state", "causes"), SERVICE_TABLE, ids=[row[0] for row in SERVICE_TABLE])
def test_service_state(_name: str, facts: ServiceFacts, state: State, causes: list[Cause]) -> None:
    assessment = assess_service(facts)
    assert (assessment.state, [r.cause for r in assessment.reasons]) == (state, causes)


def test_the_reason_of_a_cascade_names_the_dependency_and_its_state() -> None:
    reason = assess_service(svc(OK, needs=(NEEDS_BUS_DOWN,))).reasons[0]
    assert reason.code == "DEPENDENCY_DOWN"
    assert (reason.subject, reason.text) == ("event_bus", "needs event_bus, which is UNHEALTHY")


def test_a_condition_is_told_under_its_own_code() -> None:
    assert assess_instance(replace(OK, conditions=(NO_TICKS,))).reasons[0].code == "NO_TICKS"


def test_how_many_of_several_serve_is_told() -> None:
    assert assess_service(of(3, OK, NEW)).reasons[0].text == "1 of 3 instances serve"


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_an_action(cause: Cause) -> None:
    assert cause.value in ACTIONS
    one_sentence(suggested_action(Reason(cause, "x-1", "text"), "ai_brain"))


SERVICES = Path(minhos_mesh.__file__).parent
TEXTS = [file.read_text(encoding="utf-8") for file in sorted(SERVICES.rglob("*.py"))]
SETTING = [ast.parse(text) for text in TEXTS if "conditions.set(" in text]


def constants(source: ast.Module) -> dict[str, str]:
    """Names of a module that stand for a text."""
    found: dict[str, str] = {}
    for statement in source.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Constant):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            value = statement.value.value
            found |= {t.id: value for t in targets if isinstance(t, ast.Name) and isinstance(value, str)}
    return found


def conditions_of(source: ast.Module) -> set[str]:
    """Codes that a module gives to `conditions.set`."""
    known, found = constants(source), set[str]()
    for call in ast.walk(source):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "set":
            if not ast.unparse(call.func.value).endswith("conditions"):
                continue
            code = call.args[0]
            if isinstance(code, ast.Constant):
                found.add(str(code.value))
            elif isinstance(code, ast.Name) and code.id in known:
                found.add(known[code.id])
            elif isinstance(code, ast.Name) and code.id.isupper():  # of another module
                meant = re.compile(rf'^{code.id}\b[^=\n]*= "([^"]+)"$', re.MULTILINE)
                found |= {value for text in TEXTS for value in meant.findall(text)}
    return found


OF_SIERRA = {
    sierra_client.PROVENANCE_REFUSED,
    *vars(sierra_client)["_PROBLEMS"].values(),
    *bridge_status.PROBLEMS.values(),
    *dtc_view.PROBLEMS,
}
OF_ORDERS = {order_conditions.UNKNOWN, order_conditions.SETTLED_OTHERWISE}
CODES = sorted(set().union(*map(conditions_of, SETTING)) | OF_SIERRA | OF_ORDERS)


def test_the_conditions_of_all_services_were_found() -> None:
    assert {"NO_TICKS", "FOREIGN_ORDER", "DISCOVERY_REFUSED", "FILE_MISSING", "RISK_STEPS_FAIL"} <= set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_every_condition_of_our_services_has_an_action_of_its_own(code: str) -> None:
    assert code in ACTIONS
    one_sentence(suggested_action(Reason(C.CONDITION, code, "text"), "ai_brain"))


def test_every_action_belongs_to_a_cause_or_a_condition() -> None:
    assert set(ACTIONS) == {cause.value for cause in Cause} | set(CODES)


def test_a_condition_of_somebody_else_has_the_general_action() -> None:
    action = suggested_action(Reason(C.CONDITION, "TOO_{hot}", "text"), "oven")
    assert action == "Look into the condition TOO_{hot} that oven reports, in `minhos logs oven`."


def one_sentence(action: str) -> None:
    assert action.endswith(".")
    assert ". " not in action
    assert action[0].isupper()
    assert "{" not in action


def mesh(**facts: ServiceFacts) -> dict[str, ServiceFacts]:
    return {name: replace(f, service=name) for name, f in facts.items()}


def need(*providers: str) -> Requirement:
    return Requirement(providers[0] if len(providers) == 1 else "the contract", providers)


def test_one_of_several_providers_is_enough() -> None:
    facts = mesh(paper=svc(OK), live=replace(svc(), trouble=KILLED), engine=svc(OK))
    assert assess_mesh(facts, {"engine": (need("live", "paper"),)})["engine"].state is S.HEALTHY


def test_a_dead_dependency_degrades_only_those_who_need_it_directly() -> None:
    facts = mesh(bus=replace(svc(), trouble=KILLED), engine=svc(OK), page=svc(OK))
    result = assess_mesh(facts, {"engine": (need("bus"),), "page": (need("engine"),)})
    assert {name: a.state for name, a in result.items()} == {
        "bus": S.UNHEALTHY,
        "engine": S.DEGRADED,
        "page": S.HEALTHY,
    }


def test_a_chain_that_waits_for_its_first_dependency_is_starting_as_a_whole() -> None:
    facts = mesh(bus=svc(), engine=svc(FRESH), page=svc(FRESH))
    result = assess_mesh(facts, {"engine": (need("bus"),), "page": (need("engine"),)})
    assert {a.state for a in result.values()} == {S.STARTING}
    assert result["page"].reasons[0].text == "waits for engine, which is STARTING"


def test_a_dependency_nobody_knows_counts_as_stopped() -> None:
    result = assess_mesh(mesh(engine=svc(OK)), {"engine": (need("ghost"),)})
    assert result["engine"].reasons[0].text == "needs ghost, which is STOPPED"


def test_a_first_call_is_let_in_only_when_everything_required_serves() -> None:
    states = {"bus": S.DEGRADED, "venue": S.STARTING}
    assert may_serve((need("bus"),), states)
    assert not may_serve((need("bus"), need("venue")), states)
    assert may_serve((need("bus"), replace(need("venue"), required=False)), states)


HEALTHY = Assessment(S.HEALTHY)
LATE = Assessment(S.UNHEALTHY, (Reason(C.HEARTBEAT_LATE, "a-1", "silent for 2.0 s"),))


def test_changes_are_numbered_on_from_the_last_revision() -> None:
    changes = find_changes({"a": HEALTHY}, {"a": LATE, "b": HEALTHY}, revision=41, time_ns=7)
    assert [(c.revision, c.service, c.before, c.after.state) for c in changes] == [
        (42, "a", S.HEALTHY, S.UNHEALTHY),
        (43, "b", S.STOPPED, S.HEALTHY),
    ]


def test_another_wording_of_the_same_reason_is_no_change() -> None:
    worded = Assessment(S.UNHEALTHY, (Reason(C.HEARTBEAT_LATE, "a-1", "silent for 2.9 s"),))
    assert find_changes({"a": LATE}, {"a": worded}, revision=0, time_ns=0) == ()


def test_another_reason_in_the_same_state_is_a_change() -> None:
    expired = Assessment(S.UNHEALTHY, (Reason(C.LEASE_EXPIRED, "a-1", "ran out"),))
    assert len(find_changes({"a": LATE}, {"a": expired}, revision=0, time_ns=0)) == 1


def test_a_service_that_was_never_there_and_is_stopped_did_not_change() -> None:
    assert find_changes({}, {"a": Assessment(S.STOPPED)}, revision=0, time_ns=0) == ()
