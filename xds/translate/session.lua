-- The token of a session: "<address>.<share>.<end>". See session.go.

-- known gives the address of a token that came with a request; nil if the token is
-- none of ours, or its session has ended.
local function known(handle, token)
  local address, ends = token:match("^([^.]+)%.%x+%.(%d+)$")
  ends = tonumber(ends)
  if address and (ends == 0 or handle:timestamp() < ends) then
    return address
  end
end

-- made gives the token for an address.
local function made(handle, address)
  local ends = 0
  if life > 0 then
    ends = handle:timestamp() + life
  end
  return address .. "." .. share .. "." .. string.format("%.0f", ends)
end
