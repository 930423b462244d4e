// An OpenID Connect provider for the journeys: everybody who comes is logged in as `jack`, without being asked.
// Arguments: where its package is installed, and where browsers may be sent back to.
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [place, redirectUri, afterLogout] = process.argv.slice(2);
const require = createRequire(`${place}/package.json`);
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href);

const api = 'http://api.test';
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'gateway',
      client_secret: 'the secret of the gateway',
      redirect_uris: [redirectUri],
      post_logout_redirect_uris: [afterLogout],
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
    }, {
      client_id: 'bound',
      client_secret: 'the secret of the gateway',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code', 'refresh_token'],
      dpop_bound_access_tokens: true,
    }],
    issueRefreshToken: (_, client) => client.clientId === 'bound',
    claims: { openid: ['sub'], email: ['email'] },
    scopes: ['openid', 'email', 'offline_access', 'read'],
    pkce: { required: () => true },
    cookies: { keys: ['not a secret'] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.test` }) }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId,
        accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope('openid email offline_access');
      await grant.save();
      return grant;
    },
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
      resourceIndicators: {
        enabled: true,
        defaultResource: (ctx) => (ctx.oidc.params?.grant_type === 'client_credentials' ? api : undefined),
        getResourceServerInfo: () => ({
          scope: 'read',
          audience: api,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  const answer = provider.callback();
  server.on('request', (request, response) => {
    if (request.url.startsWith('/interaction/')) {
      const result = { login: { accountId: 'jack' } };
      provider.interactionFinished(request, response, result).catch((error) => {
        response.statusCode = 500;
        response.end(String(error));
      });
      return;
    }
    answer(request, response);
  });
  console.log(issuer);
});
