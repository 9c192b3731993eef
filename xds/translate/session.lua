-- Turns the token of a session, "<address>.<share>.<end>" in a cookie or a header,
-- into the header by which Envoy's filter knows the address, and back. See
-- session.go, which puts before this script: pin (that header), name, cookie
-- (the attributes of the cookie; nil for a header), share, life (in milliseconds).

-- known gives the address of a token that came with a request; nil if the token is
-- none of ours, or its session has ended.
local function known(handle, token)
  local address, ends = token:match("^([^.]+)%.%x+%.(%d+)$")
  ends = tonumber(ends)
  if address and (ends == 0 or handle:timestamp() < ends) then
    return address
  end
end

-- tokenOf takes the token out of the cookies, which the backend gets without it.
local function tokenOf(headers)
  local cookies = headers:get("cookie")
  if not cookies or not cookies:find(name .. "=", 1, true) then
    return
  end
  local rest, token = {}, nil
  for pair in cookies:gmatch("[^;]+") do
    pair = pair:gsub("^ +", "")
    if pair:sub(1, #name + 1) == name .. "=" then
      token = token or pair:sub(#name + 2):gsub('^"(.*)"$', "%1")
    else
      rest[#rest + 1] = pair
    end
  end
  if token then
    headers:remove("cookie")
    if #rest > 0 then
      headers:add("cookie", table.concat(rest, "; "))
    end
  end
  return token
end

function envoy_on_request(handle)
  local headers = handle:headers()
  headers:remove(pin)
  local token
  if cookie then
    token = tokenOf(headers)
  else
    token = headers:get(name)
    headers:remove(name)
  end
  local address = token and known(handle, token)
  if address then
    headers:add(pin, address)
  end
end

-- The filter tells the address only where it is another than the request's.
function envoy_on_response(handle)
  local headers = handle:headers()
  local address = headers:get(pin)
  if not address then
    return
  end
  headers:remove(pin)
  local ends = 0
  if life > 0 then
    ends = handle:timestamp() + life
  end
  local token = string.format("%s.%s.%.0f", address, share, ends)
  if cookie then
    headers:add("set-cookie", name .. "=" .. token .. cookie)
  else
    headers:replace(name, token)
  end
end
