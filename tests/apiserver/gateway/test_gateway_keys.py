"""What the gateway makes of itself at its first start, and finds at the next."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509

from concordat.artifacts import Access
from concordat.controller import CONFIGMAP, SECRET, Cluster
from concordat.protocol.locations import GATEWAY_CONFIGMAP
from concordat.statements import SigningKey, StatementError
from concordat_devcluster.control_plane import ControlPlane
from concordat_gateway import certificate
from concordat_gateway.keys import SECRET_NAME, load_or_create, publish
from concordat_gateway.main import served
from concordat_operator.keys import Keys, with_gateway

HUB, NOW = "gateway-keys", datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
async def cluster(crds: ControlPlane) -> AsyncIterator[Cluster]:
    async with Cluster(crds.kubeconfig) as admin:
        await admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HUB}}, "test")
        yield admin
        await admin.delete(SECRET, HUB, SECRET_NAME)
        await admin.delete(CONFIGMAP, HUB, GATEWAY_CONFIGMAP)


async def test_two_starts_at_once_agree_and_the_operator_finds_what_is_published(cluster: Cluster) -> None:
    one, other = await asyncio.gather(load_or_create(cluster, HUB, NOW), load_or_create(cluster, HUB, NOW))
    assert (one.public, one.certificate) == (other.public, other.certificate)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await publish(cluster, HUB, one, one.certificate["ca.crt"].decode())

    hub = await with_gateway(Keys(SigningKey.generate(), SigningKey.generate()), cluster, HUB, pause)
    assert pauses == [0.5]
    assert (hub.gateway, hub.gateway_ca) == (one.public, one.certificate["ca.crt"].decode())


async def test_a_key_that_comes_next_is_published_too(cluster: Cluster) -> None:
    first = await load_or_create(cluster, HUB, NOW)
    secret = await cluster.get(SECRET, HUB, SECRET_NAME)
    await cluster.replace({**secret, "data": {**secret["data"], "grant-next.pem": secret["data"]["grant.pem"]}})
    again = await load_or_create(cluster, HUB, NOW)
    assert again.public == first.public * 2
    assert again.signing.public == first.signing.public


async def test_a_gateway_without_its_secret_does_not_begin_anew(cluster: Cluster) -> None:
    """Sites have pinned its keys: fail closed, with the remedy."""
    await publish(cluster, HUB, await load_or_create(cluster, HUB, NOW), None)
    await cluster.delete(SECRET, HUB, SECRET_NAME)
    with pytest.raises(StatementError, match="restore the Secret from a backup"):
        await load_or_create(cluster, HUB, NOW)


async def test_a_client_that_pins_the_authority_believes_the_certificate(tmp_path: Path) -> None:
    """By the strictest rules of Python: those that are its default from 3.13 on."""
    certificate.write(tmp_path, certificate.make("concordat", datetime.now(UTC)))
    ca = certificate.authority(tmp_path)
    async with served(web.Application(), 0, tmp_path) as port, aiohttp.ClientSession() as session:
        tls = Access(ca=ca, server_name="concordat-gateway.concordat.svc").tls
        tls["ssl"].verify_flags |= ssl.VERIFY_X509_STRICT
        async with session.get(f"https://127.0.0.1:{port}/", **tls) as response:
            assert response.status == 404
        elsewhere = {**tls, "server_hostname": "concordat-gateway.other.svc"}
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"https://127.0.0.1:{port}/", **elsewhere)


def test_it_lasts_ten_years_and_the_authority_signs_nothing_else(tmp_path: Path) -> None:
    made = certificate.make("concordat", NOW)
    ca, own = (x509.load_pem_x509_certificate(made[name]) for name in ("ca.crt", "tls.crt"))
    assert own.not_valid_after_utc - NOW == timedelta(days=3650)
    assert own.not_valid_before_utc < NOW
    own.verify_directly_issued_by(ca)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    certificate.write(tmp_path, {**made, "ca.crt": b""})
    assert certificate.authority(tmp_path) is None
