
local before = name .. "="

function envoy_on_request(handle)
  local headers = handle:headers()
  local cookies = headers:get("cookie")
  if not cookies or not cookies:find(before, 1, true) then
    return
  end
  local out = {}
  for pair in cookies:gmatch("[^;]+") do
    pair = pair:gsub("^ +", "")
    if pair:sub(1, #before) == before then
      local token = pair:sub(#before + 1):gsub('^"(.*)"$', "%1")
      local address = known(handle, token)
      pair = address and before .. address
    end
    if pair then
      out[#out + 1] = pair
    end
  end
  if #out > 0 then
    headers:replace("cookie", table.concat(out, "; "))
  else
    headers:remove("cookie")
  end
end

-- The filter adds its cookie after those of the backend.
function envoy_on_response(handle)
  local headers = handle:headers()
  local n = headers:getNumValues("set-cookie")
  if n == 0 then
    return
  end
  local last = headers:getAtIndex("set-cookie", n - 1)
  local address, rest = last:sub(#before + 1):match('^"([%w+/=]+)"(.*)$')
  if last:sub(1, #before) ~= before or not address then
    return
  end
  local others = {}
  for i = 0, n - 2 do
    others[#others + 1] = headers:getAtIndex("set-cookie", i)
  end
  headers:remove("set-cookie")
  for _, value in ipairs(others) do
    headers:add("set-cookie", value)
  end
  headers:add("set-cookie", before .. '"' .. made(handle, address) .. '"' .. rest)
end
