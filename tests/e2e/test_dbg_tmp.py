from tests.e2e.conftest import *
from tests.conftest import *
from tests.e2e.bed import *
import time, asyncio, pytest
@pytest.mark.parametrize("what", ["none","jwks","post","admin", "stubstop"])
async def test_dbg(start, what, stub):
    bed = await start()
    if what=="jwks": await bed.client.get("/.well-known/sidecar-keys.json")
    if what=="post": await bed.post(request("ping"), token=bed.token())
    if what=="admin": await bed.admin.get("/livez")
    t=time.time()
    await bed.sidecar.stop()
    print("stop", what, time.time()-t)
