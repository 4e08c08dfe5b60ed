// A real identity provider for people in a browser: `oidc-provider` on a free port, with one public client, whose pages
// live at the origin given as the only argument. Everybody presses a button to be ada, or another to turn back.
// Prints its issuer.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const origin = process.argv[2];
const SCOPES = ["mcp:full", "mcp:read", "mcp:tools:call", "mcp:tools:list", "mcp:resources:read"];
const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });

async function grantAll(ctx) {
  const { client, params, provider, session } = ctx.oidc;
  const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope(["openid", ...SCOPES].join(" "));
  for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, SCOPES.join(" "));
  await grant.save();
  return grant;
}

function provide(issuer) {
  return new Provider(issuer, {
    jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg: "ES256" }] },
    clients: [
      {
        client_id: "pages",
        application_type: "native",
        redirect_uris: [`${origin}/keys/callback`, `${origin}/approvals/callback`],
        post_logout_redirect_uris: [`${origin}/keys`],
        token_endpoint_auth_method: "none",
        id_token_signed_response_alg: "ES256",
      },
    ],
    clientBasedCORS: (ctx, asking) => asking === origin,
    cookies: { keys: [randomUUID()] },
    scopes: ["openid", ...SCOPES],
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant: grantAll,
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 3600, IdToken: 600, Interaction: 600, Session: 3600 },
    features: {
      devInteractions: { enabled: false },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: SCOPES.join(" "),
          audience: resource,
          accessTokenFormat: "jwt",
          accessTokenTTL: 600,
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  });
}

const PAGE = `<!doctype html><title>Provider</title><h1>Who are you?</h1>
<form method="post"><button name="who" value="ada" id="ada">ada</button><button name="who" value="" id="turn-back">turn back</button></form>`;

let provider;
let answer;
const server = createServer(async (request, response) => {
  if (!request.url.startsWith("/interaction/")) {
    answer(request, response);
  } else if (request.method === "GET") {
    const { prompt } = await provider.interactionDetails(request, response);
    if (prompt.name === "consent") await provider.interactionFinished(request, response, { consent: {} }, { mergeWithLastSubmission: true });
    else response.setHeader("Content-Type", "text/html").end(PAGE);
  } else {
    let body = "";
    for await (const piece of request) body += piece;
    const who = new URLSearchParams(body).get("who");
    const outcome = who ? { login: { accountId: who } } : { error: "access_denied", error_description: "turned back" };
    await provider.interactionFinished(request, response, outcome, { mergeWithLastSubmission: false });
  }
});
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  provider = provide(issuer);
  provider.on("server_error", (ctx, error) => console.error(error));
  answer = provider.callback();
  console.log(issuer);
});
