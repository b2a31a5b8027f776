"""What the roles write is what the programs know; tests/cluster compares the record with the programs themselves."""

from __future__ import annotations

import pytest
from support.kubeedge import recorded, rendered, unknown


@pytest.mark.parametrize("program", ["edgecore", "cloudcore"])
def test_every_setting_is_one_that_the_program_knows(program: str) -> None:
    assert unknown(program, recorded(program)) == set()


def test_a_setting_that_the_program_does_not_know_is_found() -> None:
    assert unknown("edgecore", recorded("edgecore") - {"modules.edgeHub.rotateCertificates"}) == {
        "modules.edgeHub.rotateCertificates"
    }


def test_edges_use_what_was_signed_for_them_and_no_token() -> None:
    hub = rendered("edgecore")["modules"]["edgeHub"]
    assert hub["token"] == "" and hub["rotateCertificates"] is False
    assert hub["websocket"]["server"] == "cloud.example.com:10000"
    assert rendered("edgecore", kubeedge_edge_cloud="2001:db8::1")["modules"]["edgeHub"]["httpServer"] == (
        "https://[2001:db8::1]:10002"
    )


def test_the_authoritys_key_is_not_cloudcores() -> None:
    hub = rendered("cloudcore")["modules"]["cloudHub"]
    assert hub["tlsCAKeyFile"] == hub["tlsPrivateKeyFile"] == "/etc/kubeedge/certs/server.key"
    assert hub["authorization"] == {"enable": True, "debug": False, "modes": [{"node": {"enable": True}}]}


def test_mqtt_is_off_unless_asked_for() -> None:
    assert rendered("edgecore")["modules"]["eventBus"]["enable"] is False
    assert rendered("edgecore", kubeedge_edge_event_bus=True)["modules"]["eventBus"]["enable"] is True
