// A real identity provider on a free port: `oidc-provider` with dynamic registration, PKCE and resource indicators.
// Everybody who comes is ada, and she agrees to everything. Prints its issuer, then each authorisation as a line of JSON.
// POST /rotate gives it a new signing key; the old one stays published, as a rotation wants.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const SCOPES = ["mcp:full", "mcp:read", "mcp:tools:call", "mcp:tools:list", "mcp:resources:read"];
const REGISTERED = {
  client_id: "registered",
  application_type: "native",
  redirect_uris: ["http://127.0.0.1:1/callback"],
  token_endpoint_auth_method: "none",
  grant_types: ["authorization_code", "refresh_token"],
};
const cookieKey = randomUUID();
const keys = [];

function newKey() {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  keys.unshift({ ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg: "ES256" });
}

// The scopes of one authorisation are what it asked for, for the resource that it named.
async function grantAll(ctx) {
  const { client, params, provider, session } = ctx.oidc;
  const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope(["openid", "offline_access", ...SCOPES].join(" "));
  for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, SCOPES.join(" "));
  await grant.save();
  return grant;
}

function provide(issuer) {
  return new Provider(issuer, {
    jwks: { keys },
    clients: [REGISTERED],
    cookies: { keys: [cookieKey] },
    scopes: ["openid", "offline_access", ...SCOPES],
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant: grantAll,
    issueRefreshToken: () => true,
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 3600, IdToken: 600, Interaction: 600, Session: 3600, RefreshToken: 3600 },
    clientDefaults: { id_token_signed_response_alg: "ES256" },
    features: {
      devInteractions: { enabled: false },
      registration: { enabled: true },
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

newKey();
let provider;
let answer;

function begin(issuer) {
  provider = provide(issuer);
  answer = provider.callback();
  provider.on("authorization.accepted", (ctx) => {
    const { scope, resource, code_challenge_method } = ctx.oidc.params;
    console.log(JSON.stringify({ scope, resource, code_challenge_method }));
  });
  provider.on("server_error", (ctx, error) => console.error(error));
}

const server = createServer(async (request, response) => {
  if (request.method === "POST" && request.url === "/rotate") {
    newKey();
    begin(provider.issuer);
    response.writeHead(204).end();
  } else if (request.url.startsWith("/interaction/")) {
    const { prompt } = await provider.interactionDetails(request, response);
    const agreed = prompt.name === "consent" ? { consent: {} } : { login: { accountId: "ada" } };
    await provider.interactionFinished(request, response, agreed, { mergeWithLastSubmission: true });
  } else {
    answer(request, response);
  }
});
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  begin(issuer);
  console.log(issuer);
});
